"""Rules of one namespace: written by two backends, read, and heard of when they change."""
