"""Waiting until policy is where it should be: a Pod at the gate, a person or a pipeline for a revision."""
