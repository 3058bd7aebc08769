"""Figures and thresholds from labelled scores: NumPy and scikit-learn, and no network."""
