"""How the deltas of several adapters become one. A file per formula; `resolve` chooses, `load` makes it ready to add."""
