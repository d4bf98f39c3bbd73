"""Training: objectives and the loops that minimise them."""
