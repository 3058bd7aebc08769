"""Training of the network on labelled tiles."""
