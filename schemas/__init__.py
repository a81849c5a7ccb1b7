"""What travels: events, projected Kubernetes objects, programs, address sets, reports, status, and every name."""
