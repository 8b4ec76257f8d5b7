"""Search strategies: each proposes the next recipe from what was observed so far."""
