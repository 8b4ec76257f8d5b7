"""Evaluators that are not lm-eval's: one file a kind, behind the contract in `contract.py`."""
