"""Who is selected by what: Pods, label selectors, and the links between them."""
