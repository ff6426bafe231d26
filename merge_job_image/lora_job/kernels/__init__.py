"""Compiled code for this processor. Where there is none, numpy's, torch's or hashlib's does the same work in more time."""
