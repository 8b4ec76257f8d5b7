"""Two models that read the same texts side by side: how alike their units are, and how one is joined to the other."""
