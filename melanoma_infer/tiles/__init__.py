"""Tiles: where the tissue is, which tiles are scored, and their pixels."""
