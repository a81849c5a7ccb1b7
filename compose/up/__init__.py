"""`eastwest up`: everything in one process, against a cluster."""
