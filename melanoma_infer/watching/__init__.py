"""A watched folder: each slide that arrives is scored once, by one of the watchers that share an output folder."""
