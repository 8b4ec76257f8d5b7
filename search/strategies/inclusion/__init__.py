"""Which expert takes part in which layers, times one weight an expert (after AutoPEFT, arXiv:2301.12132)."""
