"""Evolution of recipes: genomes, operators that make a child of two parents, and archives that say who the parents are.

A genome is a point of the search space, so a child is again a recipe and an archive holds recipes, never checkpoints.
Nothing here proposes or remembers trials: that is `search.strategies.evolution`.
"""
