"""The map of a network: its calls in order, where its filters are, and where their channels go."""
