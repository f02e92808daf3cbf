"""ESTIMATE -> TESTS: pure functions of (Fit, L); nothing here prints."""
