"""Where base and adapters come from."""
