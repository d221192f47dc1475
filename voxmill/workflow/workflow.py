"""Everything that the rules ask for, in one object."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from voxmill.config.files import check_files
from voxmill.denoising import scans as denoising
from voxmill.runtime.finished import remove_finished
from voxmill.workflow import configuration
from voxmill.workflow.configuration import Config
from voxmill.workflow.cutting import Cutting
from voxmill.workflow.evaluations import Evaluations
from voxmill.workflow.lost import set_aside
from voxmill.workflow.predictions import Predictions
from voxmill.workflow.resources import Executor, Resources
from voxmill.workflow.scans import Scans
from voxmill.workflow.targets import Targets
from voxmill.workflow.trainings import Trainings
from voxmill.workflow.volumes import Volumes
from voxmill.workflow.wildcards import Mark, Settings


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
    evaluations : Evaluations
        Cells, their evaluation and the report.
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
    evaluations: Evaluations
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
        temporary: Mark,
        files: Iterable[str | Path] = (),
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
        temporary : callable
            Marks a folder that is removed when no job needs it any more: Snakemake's `temp` and
            `directory`.
        files : iterable of path
            The files that the configuration was read from, for what Snakemake does not tell: a
            key that stands twice.

        Raises
        ------
        VoxmillError
            Names the key or file, what was expected, what was found and what to do.
        """
        check_files(files)
        checked = configuration.load(config)
        scans = Scans(denoising.load(checked.settings), ancient)
        volumes = Volumes(checked, ancient)
        cutting = Cutting(checked, volumes, temporary)
        return cls(
            config=checked,
            volumes=volumes,
            cutting=cutting,
            predictions=Predictions(checked, ancient),
            evaluations=Evaluations(checked),
            trainings=Trainings(checked, ancient),
            scans=scans,
            resources=Resources(checked, scans.denoising, executor),
            targets=Targets(checked, scans, cutting),
        )

    def notice_lost(self) -> list[str]:
        """See `voxmill.workflow.lost.set_aside`; for the main process, which plans the jobs."""
        return set_aside(self.config)

    def end_well(self) -> None:
        """Remove what a run that succeeded needs no more: checkpoints of its finished jobs."""
        trained = self.config.settings["training"]
        remove_finished(
            [
                *(f"results/{scan}/.denoising*.pt" for scan in self.scans.denoising.scans),
                *(f"results/training/{name}/checkpoint.safetensors" for name in trained),
            ]
        )
