"""What the target rules ask for."""

from dataclasses import dataclass

from voxmill.workflow.configuration import Config
from voxmill.workflow.cutting import Cutting
from voxmill.workflow.evaluations import methods_of
from voxmill.workflow.predictions import made_by_jobs, many, slab_manifests
from voxmill.workflow.scans import Scans

_OF_A_SCAN = (
    "denoised.nii.gz",
    "denoising.json",
    "denoising.csv",
    "denoised.png",
    "denoising.png",
)


@dataclass(frozen=True)
class Targets:
    """Files that the rules without output ask for."""

    config: Config
    scans: Scans
    cutting: Cutting

    def tiles(self) -> list[str]:
        """What says that all tiles of all volumes are cut."""
        return [file for volume in self.config.volumes for file in self.cutting.targets(volume)]

    def predictions(self) -> list[str]:
        """What says that all tiles of all volumes are predicted."""
        return [
            file
            for volume, section in self.config.volumes.items()
            for network in section.networks
            for file in self._predictions_of(volume, network)
        ]

    def stitched(self) -> list[str]:
        """The probability of all volumes, in all formats."""
        names = ["probability.ome.zarr/zarr.json"]
        if "ome-tiff" in self.config.settings["stitching"]["formats"]:
            names.append("probability.ome.tif")
        return [path for name in names for path in self.per_network(name)]

    def per_network(self, name: str) -> list[str]:
        """One file name under each volume's and network's folder."""
        return [
            f"results/{volume}/{network}/{name}"
            for volume, section in self.config.volumes.items()
            for network in section.networks
        ]

    def per_method(self, name: str) -> list[str]:
        """One file name for each method and volume that has a ground truth."""
        return [
            f"results/{volume}/{method}/{name}"
            for volume, section in self.config.volumes.items()
            if section.has_truth
            for method in methods_of(self.config, volume)
        ]

    def exports(self) -> list[str]:
        """Cells of all networks for each program that was asked for."""
        return [
            folder
            for format in self.config.settings["export"]["formats"]
            for folder in self.per_network(f"export/{format}")
        ]

    def models(self) -> list[str]:
        """Every file of all networks that are trained."""
        return [
            file
            for name in self.config.settings["training"]
            for file in (
                f"models/{name}.safetensors",
                f"models/{name}.json",
                f"results/training/{name}/curves.csv",
                f"results/training/{name}/curves.png",
            )
        ]

    def denoised(self) -> list[str]:
        """Every file that denoising keeps."""
        folders = [f"results/{scan}" for scan in self.scans.denoising.scans]
        description = "derivatives/voxmill/dataset_description.json"
        return [
            *(f"{folder}/{name}" for folder in folders for name in _OF_A_SCAN),
            *(f"results/{dataset}/{description}" for dataset in self.scans.denoising.datasets),
        ]

    def durable(self) -> list[str]:
        """Every file that a run keeps.

        All are listed, because Snakemake does not miss a deleted intermediate file.
        """
        volumes = self.config.volumes
        judged = [name for name, section in volumes.items() if section.has_truth]
        measured = [name for name in volumes if self.config.halo_vox(name) is None]
        files = [
            *(f"results/{volume}/plan.json" for volume in volumes),
            *(f"results/{volume}/statistics.json" for volume in volumes),
            *(f"results/{volume}/grey_blocks.npz" for volume in volumes),
            *(f"results/{volume}/truth.csv" for volume in judged),
            *(
                f"results/{volume}/{network}/halo.json"
                for volume in measured
                for network in volumes[volume].networks
            ),
            *self.tiles(),
            *self.predictions(),
            *self.stitched(),
            *self.per_network("seams.json"),
            *self.per_network("cells.csv"),
            *self.per_network("overview.png"),
            *self.per_method("cells.csv"),
            *self.per_method("evaluation.json"),
            *self.per_method("evaluation.csv"),
            *self.per_method("matches.csv"),
            *(
                f"results/{volume}/{network}/mistakes.png"
                for volume in judged
                for network in self.config.volumes[volume].networks
            ),
            *(f"results/{volume}/comparison.html" for volume in judged),
            *self.denoised(),
        ]
        return list(dict.fromkeys(files))

    def _predictions_of(self, volume: str, network: str) -> list[str]:
        """What the prediction jobs make; of very many jobs, what is made of each slab of it.

        Predictions that were lost behind a manifest are noticed by `voxmill.workflow.lost`.
        """
        if many(self.config, volume):
            return slab_manifests(self.config, volume, network)
        return made_by_jobs(self.config, volume, network, range(len(self.config.grid(volume))))
