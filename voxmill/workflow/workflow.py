"""Everything that the rules ask for, in one object."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxmill.config.command_line import overlaid, typed
from voxmill.config.files import check_files
from voxmill.denoising import scans as denoising
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.finished import remove_finished
from voxmill.workflow import configuration
from voxmill.workflow.configuration import Config
from voxmill.workflow.cutting import Cutting
from voxmill.workflow.damaged import set_damaged_aside
from voxmill.workflow.evaluations import Evaluations
from voxmill.workflow.lost import set_aside
from voxmill.workflow.objects import Objects
from voxmill.workflow.places import check_places
from voxmill.workflow.predictions import Predictions
from voxmill.workflow.pyramids import Pyramids
from voxmill.workflow.resources import Executor, Resources
from voxmill.workflow.scans import Scans
from voxmill.workflow.targets import Targets
from voxmill.workflow.trainings import Trainings
from voxmill.workflow.volumes import Volumes
from voxmill.workflow.wildcards import Mark, Settings

# Where everything is written, seen from the working folder.
RESULTS = "results/"


@dataclass(frozen=True)
class Workflow:
    """What the rules ask for, by subject; methods that take wildcards are input functions.

    Attributes
    ----------
    config : Config
        The checked configuration.
    volumes : Volumes
        Files, params and ground truth of volumes.
    cutting : Cutting
        Tiles that are cut.
    predictions : Predictions
        Halo, networks, batches and slabs.
    pyramids : Pyramids
        Levels of the images of probabilities and labels.
    evaluations : Evaluations
        Cells, their evaluation and the report.
    objects : Objects
        Labels, their measurement and their evaluation.
    trainings : Trainings
    scans : Scans
        Denoising.
    resources : Resources
        Memory, time and GPUs of jobs.
    targets : Targets
        Files that the rules without output ask for.
    """

    config: Config
    volumes: Volumes
    cutting: Cutting
    predictions: Predictions
    pyramids: Pyramids
    evaluations: Evaluations
    objects: Objects
    trainings: Trainings
    scans: Scans
    resources: Resources
    targets: Targets

    @classmethod
    def load(
        cls,
        config: Settings,
        executor: Executor,
        ancient: Mark,
        files: Iterable[str | Path] = (),
        given: Mapping[str, Any] | None = None,
        results: str = RESULTS,
        temporary: Mark = str,
    ) -> "Workflow":
        """Check a configuration.

        Parameters
        ----------
        config : dict
            As Snakemake read it.
        executor : Executor
            Says whether jobs run on this machine: Snakemake's `workflow`.
        ancient : callable
            Marks an input whose date reruns nothing: Snakemake's `ancient`.
        files : iterable of path
            The files that the configuration was read from, for what Snakemake does not tell: a
            key that stands twice.
        given : dict, optional
            What was given on the command line by `--config`; nested values arrive as text.
        results : str
            Where a file named `results/` would be written: elsewhere, where a workflow that uses
            this one as a module gives it a prefix.
        temporary : callable
            Marks a folder that is removed when no job needs it any more: Snakemake's `temp` and
            `directory`.

        Raises
        ------
        VoxmillError
            Names the key or file, what was expected, what was found and what to do.
        """
        if results != RESULTS:
            raise VoxmillError(
                "module: expected neither prefix nor replace_prefix, found one that makes "
                f"{RESULTS} {results}: jobs find their files by name. Give names of their own to "
                "volumes and scans instead, or run in a folder of its own (--directory)."
            )
        check_files(files)
        checked = configuration.load(overlaid(config, typed(given or {})))
        scans = Scans(denoising.load(checked.settings), ancient)
        check_places([*checked.volumes, *scans.denoising.scans, *scans.denoising.datasets])
        volumes = Volumes(checked, ancient)
        cutting = Cutting(checked, volumes, temporary)
        return cls(
            config=checked,
            volumes=volumes,
            cutting=cutting,
            predictions=Predictions(checked, ancient),
            pyramids=Pyramids(checked),
            evaluations=Evaluations(checked),
            objects=Objects(checked, volumes),
            trainings=Trainings(checked, ancient),
            scans=scans,
            resources=Resources(checked, scans.denoising, executor),
            targets=Targets(checked, scans, cutting),
        )

    def notice_lost(self) -> list[str]:
        """Rename what was damaged or lost; for the main process, which plans the jobs.

        See `voxmill.workflow.damaged` and `voxmill.workflow.lost`.
        """
        denoising = self.scans.denoising
        names = [*self.config.volumes, *denoising.scans, *denoising.datasets]
        trained = [f"training/{name}" for name in self.config.settings["training"]]
        return [*set_damaged_aside([*names, *trained]), *set_aside(self.config)]

    def end_well(self) -> None:
        """Remove what a run that succeeded needs no more: checkpoints of its finished jobs."""
        trained = self.config.settings["training"]
        remove_finished(
            [
                *(f"results/{scan}/.denoising*.pt" for scan in self.scans.denoising.scans),
                *(f"results/training/{name}/checkpoint.safetensors" for name in trained),
            ]
        )
