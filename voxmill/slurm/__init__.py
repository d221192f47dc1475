"""Running on a SLURM cluster: job arrays, resuming after a killed run, the table of a run.

Used from the command line, `python -m voxmill.slurm`; see docs/cluster.md.
"""
