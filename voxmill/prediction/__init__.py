"""The jobs around the engine: a tile, or any box of a volume, through a network.

`measure_halo` finds the halo that a network needs on a volume. `predict_tile` and `predict_batch`
read tiles, normalise them, run the network and write the cores (`predictor`). `volume_predictor`
predicts any box of an opened volume. All go through `memory`, which cuts a box into `blocks` that
fit the free memory and runs them (`streams`), and `box`, which claims the device; `flips` averages
over mirror images. The package imports engine, networks, tiles and volumes; `voxmill.evaluation`
imports it for the seams.
"""
