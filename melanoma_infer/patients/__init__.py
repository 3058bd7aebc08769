"""Patients: their values, typed or from a manifest."""
