"""Address sets of one namespace, by two backends."""
