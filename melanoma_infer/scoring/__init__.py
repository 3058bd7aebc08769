"""Scoring: tile outputs and a patient → probabilities, regions, scores and a verdict."""
