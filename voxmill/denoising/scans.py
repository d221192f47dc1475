"""The scans of a configuration, checked while the Snakefile is parsed.

This reads no voxels and imports no torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from voxmill.config.denoising import DenoisingSection
from voxmill.config.scans import ScanSection
from voxmill.denoising import bids
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.fetched import why_no_file
from voxmill.runtime.paths import advice
from voxmill.volumes.fingerprints import path_fingerprint

# Between the name of a data set and that of its scan.
SEPARATOR = "_"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Scan:
    """One scan to denoise.

    Attributes
    ----------
    name : str
        Its folder under results/.
    path : str
        The NIfTI file; a rule makes that of a phantom.
    volume : int or None
        Volume of a 4D file, from 0.
    reference, mask : str or None
        Noise-free image and brain mask on the same grid.
    phantom : dict or None
        Settings of a synthetic scan.
    dataset : str or None
        The configured BIDS data set that it belongs to.
    sigma : float or None
        Its noise level, where the configuration gives one of its own.
    """

    name: str
    path: str
    volume: int | None = None
    reference: str | None = None
    mask: str | None = None
    phantom: dict | None = None
    dataset: str | None = None
    sigma: float | None = None

    @property
    def fingerprints(self) -> list[str]:
        """Digests of the content of the user's files; empty for a phantom."""
        if self.phantom is not None:
            return []
        return [path_fingerprint(path) for path in (self.path, self.reference, self.mask) if path]


@dataclass(frozen=True)
class Denoising:
    """The denoising of a configuration.

    Attributes
    ----------
    scans : dict of str to Scan
    datasets : dict of str to dict
        The sections of BIDS folders by their configured name.
    settings : dict
        Plain settings of `DenoiseSettings`.
    devices : tuple of str
    """

    scans: dict[str, Scan]
    datasets: dict[str, dict]
    settings: dict
    devices: tuple[str, ...]

    def of_dataset(self, dataset: str) -> list[Scan]:
        """List the scans of a BIDS data set in the order of `voxmill.denoising.bids.find_scans`."""
        return [scan for scan in self.scans.values() if scan.dataset == dataset]

    @property
    def gpus(self) -> int:
        """Number of GPUs that a job asks for on a cluster."""
        return sum(device != "cpu" for device in self.devices)


def load(config: dict, source: str = "config") -> Denoising:
    """Check the sections `scans` and `denoising` of a configuration.

    Parameters
    ----------
    config : dict
        The whole configuration with its defaults.
    source : str
        Its name in errors.

    Raises
    ------
    VoxmillError
        Names the key or file, what was expected, what was found and what to do.
    """
    section = dict(config.get("denoising") or {})
    devices = DenoisingSection.from_dict(section, source=source).devices
    section.pop("devices", None)
    scans: dict[str, Scan] = {}
    datasets: dict[str, dict] = {}
    for name, entry in (config.get("scans") or {}).items():
        for scan in _scans(name, entry, f"{source}: scans.{name}"):
            if scan.name in scans:
                raise VoxmillError(f"{source}: scans.{name}: {scan.name} is there twice.")
            scans[scan.name] = scan
        if "bids" in entry:
            datasets[name] = entry
    return Denoising(scans, datasets, section, devices)


def _scans(name: str, entry: dict, key: str) -> list[Scan]:
    ScanSection.from_dict(entry, key=key)
    if "bids" in entry:
        suffixes = entry.get("suffixes", bids.DEFAULT_SUFFIXES)
        found = _named(f"{key}.bids", lambda path: bids.find_scans(path, suffixes), entry["bids"])
        return [
            Scan(
                f"{name}{SEPARATOR}{scan.name}" + ("" if volume is None else f"_vol-{volume:04d}"),
                str(scan.path), volume, dataset=name, sigma=entry.get("sigma"),
            )
            for scan in found
            for volume in _named(f"{key}.bids", bids.volumes_of, scan)
        ]  # fmt: skip
    folder = f"results/{name}"
    if "phantom" in entry:
        return [
            Scan(
                name, f"{folder}/scan.nii.gz", reference=f"{folder}/reference.nii.gz",
                mask=f"{folder}/mask.nii.gz", phantom=entry["phantom"], sigma=entry.get("sigma"),
            )
        ]  # fmt: skip
    for part in ("path", "reference", "mask"):
        if part in entry:
            _check_file(entry[part], f"{key}.{part}")
    return [Scan(name=name, **entry)]


def _check_file(path: str, key: str) -> None:
    if reason := why_no_file(path):
        raise VoxmillError(f"{key}: {path} can't be read: {reason}.")
    if not Path(path).exists():
        raise VoxmillError(f"{key}: {path} does not exist. {advice(path)}")


def _named(key: str, function: Callable[[Any], Result], argument: Any) -> Result:
    """Call a function; its errors get the configuration's key in front."""
    try:
        return function(argument)
    except VoxmillError as error:
        raise VoxmillError(f"{key}: {error}") from None
