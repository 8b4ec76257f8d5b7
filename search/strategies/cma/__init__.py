"""CMA-ES in parts: the unit cube, the stages from coarse to fine, and one stage's distribution."""
