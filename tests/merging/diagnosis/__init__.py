"""Tests of what can be known from weights alone: structures are planted and must be found."""
