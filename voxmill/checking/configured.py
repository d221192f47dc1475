"""The folders of a configuration's results, and the files that it asks for."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from voxmill.runtime.errors import VoxmillError
from voxmill.workflow import Workflow

RESULTS = "results"


@dataclass(frozen=True)
class _Here:
    """Jobs run on this machine."""

    non_local_exec: bool = False
    remote_exec: bool = False


def folders_and_targets(configuration: str | None) -> tuple[list[str], list[str]]:
    """What to check.

    Parameters
    ----------
    configuration : path or None
        None: everything in `results`, and nothing is asked for.

    Returns
    -------
    folders, targets : list of str

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
    try:
        content = yaml.safe_load(Path(configuration).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise VoxmillError(f"{configuration}: expected a configuration, found {error}") from None
    if not isinstance(content, dict):
        raise VoxmillError(f"{configuration}: expected a configuration, found {content!r:.40}")
    loaded = Workflow.load(content, _Here(), str, [configuration])
    names = [*loaded.config.volumes, *loaded.scans.denoising.scans]
    folders = [f"{RESULTS}/{name}" for name in names if Path(RESULTS, name).is_dir()]
    return folders, loaded.targets.durable()
