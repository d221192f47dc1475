"""The folders of a configuration's results, and the files that it asks for."""

from dataclasses import dataclass
from pathlib import Path

from voxmill.config.files import read_configuration
from voxmill.runtime.errors import VoxmillError
from voxmill.workflow import Workflow

RESULTS = "results"


@dataclass(frozen=True)
class _Here:
    """Jobs run on this machine."""

    non_local_exec: bool = False
    remote_exec: bool = False


def folders_and_targets(configuration: str | None) -> tuple[list[str], list[str]]:
    """Folders to check, and files that should be there.

    Without a configuration: everything in `results`, and nothing is asked for.

    Raises
    ------
    VoxmillError
        If there are no results, or the configuration is wrong.
    """
    if not Path(RESULTS).is_dir():
        raise VoxmillError(
            f"{RESULTS}: this folder does not exist in {Path.cwd()}. Start the check where "
            "Snakemake ran."
        )
    if configuration is None:
        return [RESULTS], []
    loaded = Workflow.load(read_configuration(configuration), _Here(), str)
    names = [*loaded.config.volumes, *loaded.scans.denoising.scans]
    folders = [f"{RESULTS}/{name}" for name in names if Path(RESULTS, name).is_dir()]
    return folders, loaded.targets.durable()
