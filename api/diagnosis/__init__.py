"""`mergesearch doctor --models`: what the weights of a base and its experts say, as tables, as JSON and as a page."""
