"""The generator's name in every phantom, and the caution that must accompany one wherever it is shown."""

GENERATOR = "v1"
"""The same name and seed give the same scene; any change to the drawing needs a new name."""

CAUTION = (
    "Phantom result. Phantoms are drawn scenes whose geometry is known exactly. They test the instrument: scale, "
    "geometry, stitching, engines, and whether the network uses what it should. They say nothing about tissue or "
    "patients."
)
