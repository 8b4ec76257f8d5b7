"""What to try next. The only home of optuna and cmaes."""
