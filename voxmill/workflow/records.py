"""Contents decide what runs again, where Snakemake asks its records and dates."""

import os
from pathlib import Path
from types import ModuleType

from voxmill.runtime.digests import ROOT

RECORDS = ".snakemake/voxmill/records"
"""An input of every job, always newer than what is there, and always the same.

Snakemake compares its checksum with the one in its records of a product. Where `.snakemake` was
removed, or results were copied without it, there is no record: each job runs, and keeps what is
whole and was made of the same (`voxmill.runtime.receipts`).
"""


def renew_records() -> None:
    """Give `RECORDS` a date behind that of all that is there; in the main process alone."""
    path = Path(RECORDS)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("Jobs whose products are in no record look at them anew.\n")
    # Older than the outputs of a run that goes on meanwhile, by the file system's own clock.
    just_before = path.stat().st_mtime_ns - 2_000_000_000
    os.utime(path, ns=(just_before, just_before))


def ignore_dates_of_scripts(jobs: ModuleType) -> None:
    """Let scripts count by their content alone, which `source_digest` has in the rules' params.

    Their dates are new in each clone, and after a change of branch and back.

    Parameters
    ----------
    jobs : module
        `snakemake.jobs`, whose `get_script_mtime` is asked for the date of a rule's script.
    """
    date_of = jobs.get_script_mtime

    def date(path: str) -> float:
        ours = Path(path).resolve().parent == ROOT / "scripts"
        return 0.0 if ours else float(date_of(path))

    jobs.get_script_mtime = date  # type: ignore[attr-defined]
