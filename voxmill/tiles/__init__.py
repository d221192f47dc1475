"""A volume cut into tiles, and predicted tiles stitched into a volume.

`grid` knows where tiles lie (pure geometry). `plan_volume` writes the grid and the halo of a volume
as `plan.json`, which `plan` reads for every later job. `cut_tile` cuts one tile with its halo out
of the volume; the tiles are then predicted (`voxmill.prediction`); `check_slab` checks the
predictions of one slab and lists them in a manifest (`slab`); `stitch_volume` streams the
predictions in the manifests into one volume. The package imports geometry, volumes and runtime.
"""
