"""Slides that are drawn, so that their truth is known: an instrument, not a data set."""
