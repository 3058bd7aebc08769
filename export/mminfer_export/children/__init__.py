"""Modules that read files that may hold code. Each runs in a process of its own and imports little but PyTorch."""
