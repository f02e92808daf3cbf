"""What a fit hangs on: residuals, influence, robust errors, shares of variance."""
