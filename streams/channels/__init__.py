"""What goes over NATS, each with its write and its read side: policy, inventory, status."""
