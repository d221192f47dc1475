"""A volume cut into tiles, and predicted tiles stitched into a volume.

`grid` knows where tiles lie (pure geometry). `plan_volume` writes the grid and the halo of a volume
as `plan.json`, which `plan` reads for every later job. `cut_tile` cuts one tile with its halo out
of the volume; the tiles are then predicted (`voxmill.prediction`), each a shard of one array
(`predicted`). `check_slab` checks the shards of one slab, `build_level` makes a row of a coarser
level, `stitch_volume` writes the metadata that make them one image, and `export_tiff` an OME-TIFF
of it. The package imports geometry, volumes and runtime.
"""
