"""Cost-aware search around the front of cost and value (Fetterman et al., CARBS, arXiv:2306.08055)."""
