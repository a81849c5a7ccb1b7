"""The roles of the stack, each a command: one process each, configured by flags, environment or file."""
