"""One optimiser for each method, and the rule by which they share the trials."""
