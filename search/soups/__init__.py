"""Soups: plain averages of whole experts, and the rules by which one is put together. No Optuna here."""
