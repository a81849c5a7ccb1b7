"""Whoever asks: a person on the node, a Pod at the gate."""
