"""Measuring experts on a suite's search documents: what `merging.artefacts` keeps and merges read."""
