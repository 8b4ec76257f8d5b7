"""What was measured of models on data, once, and is read by every merge after: Fisher information, inputs' products."""
