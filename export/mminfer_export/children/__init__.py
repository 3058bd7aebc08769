"""What reads files that may hold code, each a script that runs in a process of its own and imports PyTorch alone."""
