"""The mark by which a slide file says that it is a phantom: a drawn scene, not scanned tissue."""

PHANTOM_MARK = "mminfer.phantom"
"""A key in the slide's description; its value is the name of the generator."""
