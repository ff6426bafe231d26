"""What nobody names any more in a store, and its removal."""
