"""Engines: what says, by interpreting or by packets, what a case's connections do, and what became of the cases."""
