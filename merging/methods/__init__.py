"""Merge methods: pure tensor functions, one family a file. `merging/catalog.py` says what exists."""
