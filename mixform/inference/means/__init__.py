"""Marginal means, their contrasts and families, slopes."""
