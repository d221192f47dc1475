"""A volume cut into tiles, and predicted tiles stitched into a volume.

`grid` knows where tiles lie, `batches` which of them share a job (pure geometry). `plan_volume`
writes the grid and the halo of a volume as `plan.json`, which `plan` reads for every later job;
`forecast` says what they will take. `cut_tiles` cuts tiles with their halos out of the volume;
`tile_source` reads them, or the same windows of the volume itself. The tiles are then predicted
(`voxmill.prediction`), each a shard of one array (`predicted`). `check_slab` checks the shards of
one slab, `build_level` makes a row of a coarser level, `stitch_volume` writes the metadata that
make them one image, and `export_tiff` an OME-TIFF of it. The package imports geometry, volumes and
runtime.
"""
