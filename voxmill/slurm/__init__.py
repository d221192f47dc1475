"""Running on a SLURM cluster, from the command line: `python -m voxmill.slurm`, docs/cluster.md.

- `commands`: SLURM's programs (submit, list, cancel). `dag`: the jobs that Snakemake plans.
- `array`: planned predictions go in; job arrays and the jobs before and after them come out.
- `resume`: the files of a killed run go in; a new run that keeps its finished tiles starts.
- `table`: the records of the jobs go in; seconds, waits, GPUs and memory of each tile come out.
- `__main__`: the command line.

`array` and `resume` use `dag` and `commands`; nothing points the other way.
"""
