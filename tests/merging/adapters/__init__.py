"""Adapters: real ones, made by peft, and what they must be equal to."""
