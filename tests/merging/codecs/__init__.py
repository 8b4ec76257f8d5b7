"""Tests of compact deltas: closed forms, round trips, and folders that were damaged."""
