"""Small real models trained on the spot: input of the demo, the tests and the benchmarks."""
