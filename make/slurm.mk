# Killed runs, here and on clusters (docs/operations.md), and clusters (docs/cluster.md).
.PHONY: resume array table test-slurm

# Go on after a run whose Snakemake was killed, with SLURM or without. ARGS are for Snakemake:
#   make resume ARGS="--configfile my.yaml"
resume: $(VENV)/.runtime
	python -m voxmill.slurm resume $(RESUME) -- $(ARGS)

# Predict as job arrays, at most LIMIT tasks at a time (0: as many as SLURM lets run).
array: $(VENV)/.runtime
	python -m voxmill.slurm array --limit $(or $(LIMIT),0) -- $(ARGS)

# What the run cost.
table:
	python -m voxmill.slurm table

# All tests on a real SLURM, those over a minute too (25 minutes). Installs SLURM's packages where
# it may; the tests skip, and say why, where it may not.
test-slurm: $(VENV)/.dev
	-tests/install.sh accounting
	python -m pytest tests/slurm -m "slow or not slow"
