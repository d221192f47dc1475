"""A volume cut into tiles, and predicted tiles stitched into a volume.

`grid` knows where tiles lie, `batches` which of them share a job (pure geometry). `plan_volume`
writes the grid and the halo of a volume as `plan.json`, which `plan` reads for every later job.
`cut_tiles` cuts tiles with their halos out of the volume; `tile_source` reads them, or the same
windows of the volume itself. The tiles are then predicted (`voxmill.prediction`); `check_slab`
checks the predictions of one slab and lists them in a manifest (`slab`); `stitch_volume` streams
the predictions in the manifests into one volume. The package imports geometry, volumes and runtime.
"""
