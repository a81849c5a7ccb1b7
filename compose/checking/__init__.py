"""Policy testing: case files, what they say should happen, and whether it does."""
