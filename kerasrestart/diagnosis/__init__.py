"""Whether anything in a network is useless, what it is, and what helps."""
