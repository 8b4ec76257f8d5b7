"""Where a candidate is built and scored."""
