"""Load tests and measurements; nothing in the product imports this package."""
