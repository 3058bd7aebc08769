"""Phantoms: drawn slides whose truth is known exactly. They test the software and are not a data set."""
