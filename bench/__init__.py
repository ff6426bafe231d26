"""Benchmarks: one command each, ratios from interleaved runs."""
