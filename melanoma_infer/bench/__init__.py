"""What `mminfer bench` measures: everything side by side in one run, and how exact each timed engine is."""
