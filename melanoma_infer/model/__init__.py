"""The network in PyTorch: the only package here that imports torch at its top."""
