"""Data sets: tiles with labels, from annotated slides or from ready-made tiles."""
