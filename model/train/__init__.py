"""Training of crystal-mini."""
