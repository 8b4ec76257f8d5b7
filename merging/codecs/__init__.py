"""Compact forms of a delta: what an expert is kept as where its own tensors would take too much room."""
