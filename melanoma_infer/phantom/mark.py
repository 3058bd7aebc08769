"""How a phantom is known, and what must be said wherever one is shown."""

PHANTOM_MARK = "mminfer.phantom"
"""Stands in the slide's description, followed by the generator."""

GENERATOR = "simple-1"
"""The same seed gives the same scene as long as this name stands; a change of the drawing changes the name."""

CAUTION = (
    "Phantom result. Phantoms are drawn scenes whose geometry is known exactly. They test the instrument: scale, "
    "geometry, stitching, engines, and whether the network uses what it should. They say nothing about tissue or "
    "patients."
)
