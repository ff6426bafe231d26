"""One module per group of verbs; each adds its own with `register(app)`."""
