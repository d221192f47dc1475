"""Cells of a probability volume.

`find_cells` reads a stitched volume block by block and finds the cells by one of two detectors:
local maxima (`maxima`) or connected components (`components`, which ground truth made of masks and
labels uses too). `table` writes and reads the result, `cells.csv`. The package imports
config, geometry, volumes and runtime; `voxmill.evaluation` and `voxmill.training` use it.
"""
