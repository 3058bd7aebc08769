"""The pipeline: one slide, or many, from file to result."""
