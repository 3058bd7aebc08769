"""Bundles: a model on disk, verified before it is used."""
