"""All Pods of one node: what is to be written, what was, what others changed, and what is said of it."""
