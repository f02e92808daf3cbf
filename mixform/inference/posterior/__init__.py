"""Draws from a posterior in, what users ask of a model out: means, limits, draws."""
