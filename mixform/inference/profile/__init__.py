"""Profiles of the criterion, and the limits they give."""
