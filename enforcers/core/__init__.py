"""What the kernel should hold, and what differs from it, as plain values: no kernel is touched here."""
