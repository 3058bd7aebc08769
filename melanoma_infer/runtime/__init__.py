"""What the process runs on and leaves behind: cores, cache, files, versions, privacy, time."""
