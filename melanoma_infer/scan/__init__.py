"""Pixels that arrive while a slide is being scanned: in frames or strips of any size, order and overlap."""
