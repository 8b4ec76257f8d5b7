"""NSGA-II and NSGA-III without generations: who is better, who is kept, and how children are bred."""
