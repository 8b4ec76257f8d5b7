"""Measuring experts on documents of a suite's tasks: what `merging.artefacts` keeps and merges read."""
