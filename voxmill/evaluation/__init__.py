"""Found cells against ground truth, and what a volume's tiles cost at their seams.

`check_ground_truth` reads a ground truth of any kind (`ground_truth`) as points. `evaluate_cells`
matches found cells to them (`matching`: which pairs; `matches`: which of them count), computes the
metrics (`metrics`, `thresholds`) and writes them; `compare_methods` puts the evaluations of one
volume on a page, `draw_overview` draws it. `find_baseline_cells` finds cells without learning
(`baselines`), to compare with. `measure_seams` predicts windows at the seams anew and compares.
`python -m voxmill.evaluation results` prints what is there. The package imports cells, prediction,
tiles and volumes; of the packages only `voxmill.training` imports it.
"""
