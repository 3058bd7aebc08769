"""Is an engine still right? The same tiles through the reference and through each engine, and what to make of it."""
