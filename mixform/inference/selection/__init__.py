"""Comparison of models: likelihood ratios, deletions, backward elimination."""
