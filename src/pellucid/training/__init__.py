"""Training a network: the loop, its schedule, its run folder."""
