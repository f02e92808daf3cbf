"""Many responses of one design, searched together."""
