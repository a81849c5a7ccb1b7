"""The command for whoever stands on a node: what its enforcer knows, what the kernel holds, and a way out."""
