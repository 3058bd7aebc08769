"""Reports: slide result → files."""
