"""What a search begins with: recipes that are good without any search, and stay in its report."""
