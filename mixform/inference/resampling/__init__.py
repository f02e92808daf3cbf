"""Simulation from the model: bootstrap, likelihood-ratio tests, power."""
