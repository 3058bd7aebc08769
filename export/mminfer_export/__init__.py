"""Bundles: from a network in PyTorch to a folder that every engine runs. Import the module you need."""
