"""What `mminfer bench` measures: everything side by side in one run, with the parity of what was timed."""
