"""Inputs and params of denoising."""

from collections import Counter
from dataclasses import dataclass

from voxmill.denoising.bids import DEFAULT_SUFFIXES
from voxmill.denoising.scans import Denoising, Scan
from voxmill.workflow.wildcards import Mark, Settings, Wildcards


@dataclass(frozen=True)
class Scans:
    """What rules ask about the scans of a configuration.

    Parameters
    ----------
    denoising : Denoising
        The checked sections `scans` and `denoising`.
    ancient : callable
        Marks an input whose date reruns nothing.
    """

    denoising: Denoising
    ancient: Mark

    def file(self, wildcards: Wildcards) -> str:
        """The NIfTI file of a scan."""
        scan = self._scan(wildcards)
        return self._marked(scan, scan.path)

    def reference(self, wildcards: Wildcards) -> str | list[str]:
        """The noise-free image of a scan, where there is one."""
        scan = self._scan(wildcards)
        return self._marked(scan, scan.reference) if scan.reference else []

    def mask(self, wildcards: Wildcards) -> str | list[str]:
        """The brain mask of a scan, where there is one."""
        scan = self._scan(wildcards)
        return self._marked(scan, scan.mask) if scan.mask else []

    def fingerprints(self, wildcards: Wildcards) -> list[str]:
        """Fingerprints of the content of the user's files of a scan."""
        return self._scan(wildcards).fingerprints

    def volume(self, wildcards: Wildcards) -> int | None:
        """Which volume of a 4D file to denoise."""
        return self._scan(wildcards).volume

    def phantom(self, wildcards: Wildcards) -> Settings | None:
        """Settings of a synthetic scan."""
        return self._scan(wildcards).phantom

    def settings(self, wildcards: Wildcards) -> Settings:
        """Settings of a scan's fits."""
        sigma = self._scan(wildcards).sigma
        return self.denoising.settings | ({} if sigma is None else {"sigma": sigma})

    def devices(self, wildcards: Wildcards) -> list[str]:
        """Devices of a fit."""
        return list(self.denoising.devices)

    def dataset_folder(self, wildcards: Wildcards) -> str:
        """The BIDS folder of a data set."""
        folder: str = self.denoising.datasets[wildcards.dataset]["bids"]
        return folder

    def dataset_suffixes(self, wildcards: Wildcards) -> list[str]:
        """Suffixes of the scans of a data set."""
        return list(self.denoising.datasets[wildcards.dataset].get("suffixes", DEFAULT_SUFFIXES))

    def dataset_counts(self, wildcards: Wildcards) -> list[int]:
        """How many volumes each image of a data set has, as files are denoised."""
        paths = [scan.path for scan in self.denoising.of_dataset(wildcards.dataset)]
        return list(Counter(paths).values())

    def dataset_volumes(self, wildcards: Wildcards) -> list[str]:
        """Denoised scans of a data set."""
        found = self.denoising.of_dataset(wildcards.dataset)
        return [f"results/{scan.name}/denoised.nii.gz" for scan in found]

    def dataset_records(self, wildcards: Wildcards) -> list[str]:
        """Records of the scans of a data set."""
        found = self.denoising.of_dataset(wildcards.dataset)
        return [f"results/{scan.name}/denoising.json" for scan in found]

    def _scan(self, wildcards: Wildcards) -> Scan:
        return self.denoising.scans[wildcards.scan]

    def _marked(self, scan: Scan, path: str) -> str:
        # Touching a user's own file reruns nothing, as for volumes.
        return path if scan.phantom is not None else self.ancient(path)
