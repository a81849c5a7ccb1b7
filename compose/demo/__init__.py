"""`eastwest demo`: a small shop whose policies become rules that stop packets, on this machine."""
