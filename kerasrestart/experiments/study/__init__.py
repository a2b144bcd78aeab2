"""A grid of runs that share their baselines, and the report that compares them."""
