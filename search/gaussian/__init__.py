"""Gaussian processes that know how sure each observation is: the model behind the strategy `gp`."""
