"""The variances drawn from their posterior; beta and u exactly, given each draw."""
