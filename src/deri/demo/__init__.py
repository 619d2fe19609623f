"""The demonstration: the whole main job on simulated data, with a page of results."""
