"""Which connections go on, and which end."""
