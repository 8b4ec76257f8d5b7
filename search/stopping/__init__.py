"""When a search is over: its trials, its budget, or what there is left to gain are used up. Policies; nobody acts."""
