"""Where Pods are: what a node's container runtime, or whoever plays it, tells of sandboxes."""
