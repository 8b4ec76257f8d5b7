"""What a candidate is, and how it is built. Importing this package loads no torch."""
