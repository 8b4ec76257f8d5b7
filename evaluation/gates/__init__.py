"""Cheap gates before scoring: a candidate that is broken as a language model is found by a few texts and prompts."""
