"""Inputs and params of volumes and of their ground truth."""

from dataclasses import dataclass

from voxmill.config.volumes import table_reading
from voxmill.runtime.digests import source_digest
from voxmill.volumes import source_choices
from voxmill.volumes.fingerprints import path_fingerprint
from voxmill.workflow.configuration import Config
from voxmill.workflow.configured_volume import Volume
from voxmill.workflow.wildcards import Mark, Settings, Wildcards


@dataclass(frozen=True)
class Volumes:
    """What rules ask of the volumes of a configuration.

    Parameters
    ----------
    config : Config
    ancient : callable
        Marks an input whose date reruns nothing.
    """

    config: Config
    ancient: Mark

    def file(self, wildcards: Wildcards) -> str:
        """The file that windows of a volume are read from.

        The date of a user's file counts for nothing; the fingerprint of its content in the rules'
        params does.
        """
        volume = self._volume(wildcards)
        return self.ancient(self._path(volume)) if self._is_users(volume) else self._path(volume)

    def original(self, wildcards: Wildcards) -> str:
        """The user's own file of a volume; a file that nobody makes where it is a phantom."""
        return self.ancient(self._volume(wildcards).path or "results/no-such-volume")

    def arguments(self, wildcards: Wildcards) -> Settings:
        """Arguments of `voxmill.volumes.read_header` for the voxels that networks see."""
        volume = self._volume(wildcards)
        if volume.resampling is None:
            return self.own_arguments(wildcards)
        return self.own_arguments(wildcards) | {"resampled_um": list(volume.voxel_size_um)}

    def own_arguments(self, wildcards: Wildcards) -> Settings:
        """Arguments of `voxmill.volumes.read_header` for the voxels of the file."""
        volume = self._volume(wildcards)
        return {
            "channel": None,
            **source_choices(volume.settings),
            "path": self._path(volume),
            "voxel_size_um": self.own_voxel_size_um(wildcards),
        }

    def copied(self, wildcards: Wildcards) -> Settings | None:
        """Arguments of the volume where it is to be shown, but is no OME-Zarr; None elsewhere."""
        path = self._volume(wildcards).path or ""
        wanted = self.config.settings["export"]["image"] == "copy"
        if wildcards.format != "neuroglancer" or not wanted or path.rstrip("/").endswith(".zarr"):
            return None
        return self.own_arguments(wildcards)

    def copied_file(self, wildcards: Wildcards) -> str | list[str]:
        """The file of such a volume."""
        return [] if self.copied(wildcards) is None else self.file(wildcards)

    def original_arguments(self, wildcards: Wildcards) -> Settings:
        """Arguments of `voxmill.volumes.read_header` for the user's own file."""
        return self.own_arguments(wildcards) | {"path": self._volume(wildcards).path}

    def fingerprint(self, wildcards: Wildcards) -> str:
        """Fingerprint of the content of the file that windows of a volume are read from."""
        volume = self._volume(wildcards)
        if volume.windows:
            return volume.fingerprint
        # Tiles are kept as long as the same would be unpacked again.
        code = source_digest("voxmill.volumes.unpack_volume")
        return f"unpacked {volume.fingerprint} {code}"

    def original_fingerprint(self, wildcards: Wildcards) -> str:
        """Fingerprint of the content of the user's own file."""
        return self._volume(wildcards).fingerprint

    def tissue(self, wildcards: Wildcards) -> str:
        """Where tissue is: "auto", "none" or the path of a mask."""
        tissue: str = self._volume(wildcards).settings.get("tissue", "auto")
        return tissue

    def tissue_file(self, wildcards: Wildcards) -> str | list[str]:
        """The mask of a volume's tissue, where there is one."""
        tissue = self.tissue(wildcards)
        return [] if tissue in ("auto", "none") else self.ancient(tissue)

    def tissue_fingerprint(self, wildcards: Wildcards) -> str:
        """Fingerprint of the content of the mask of tissue; "" where there is none."""
        tissue = self.tissue(wildcards)
        return "" if tissue in ("auto", "none") else path_fingerprint(tissue)

    def counted_um(self, wildcards: Wildcards) -> list[float] | None:
        """What a voxel counts as in a model's lengths, where that is not its size."""
        counted_um = self._volume(wildcards).counted_um
        return list(counted_um) if counted_um else None

    def own_shape(self, wildcards: Wildcards) -> list[int]:
        """Shape of a volume's file, z, y, x."""
        volume = self._volume(wildcards)
        return list(volume.own_shape or volume.shape)

    def own_voxel_size_um(self, wildcards: Wildcards) -> list[float]:
        """Voxel size of a volume's file, z, y, x, micrometres."""
        volume = self._volume(wildcards)
        return list(volume.own_voxel_size_um or volume.voxel_size_um)

    def own_grid(self, wildcards: Wildcards) -> Settings | None:
        """Shape and voxel size of a volume's file, where it is resampled on reading."""
        if self._volume(wildcards).resampling is None:
            return None
        shape, size = self.own_shape(wildcards), self.own_voxel_size_um(wildcards)
        return {"own_shape": shape, "own_voxel_size_um": size}

    def voxel_size_um(self, wildcards: Wildcards) -> list[float]:
        """Size of the voxels that networks see, z, y, x, micrometres."""
        return list(self._volume(wildcards).voxel_size_um)

    def box(self, wildcards: Wildcards) -> list[list[int]] | None:
        """Start and stop of the box of a pilot, in voxels of the file; None for the whole."""
        box = self._volume(wildcards).box
        return box.to_lists() if box else None

    def part(self, wildcards: Wildcards) -> list[list[int]] | None:
        """Start and stop of the cores that a pilot predicts, in voxels of the tiles."""
        part = self.config.part(wildcards.volume)
        return part.to_lists() if part else None

    def own_part(self, wildcards: Wildcards) -> list[list[int]] | None:
        """The same in voxels of the file."""
        part, grid = self.config.part(wildcards.volume), self._volume(wildcards).resampling
        if part and grid:
            part = grid.own_box(part)
        return part.to_lists() if part else None

    def phantom(self, wildcards: Wildcards) -> Settings:
        """Settings of a phantom volume."""
        settings: Settings = self._volume(wildcards).settings["phantom"]
        return settings

    def truth_file(self, wildcards: Wildcards) -> str:
        """The user's ground truth of a volume, or the phantom's."""
        volume = self._volume(wildcards)
        if volume.path is None:
            return f"results/{volume.name}/phantom.csv"
        return self.ancient(volume.settings["truth"]["path"])

    def truth_fingerprint(self, wildcards: Wildcards) -> str:
        """Fingerprint of the content of the user's ground truth: its date counts for nothing."""
        return self._volume(wildcards).truth_fingerprint

    def truth_kind(self, wildcards: Wildcards) -> str | None:
        """What the ground truth is (points, labels ...); None where the file tells."""
        kind: str | None = self._volume(wildcards).settings.get("truth", {}).get("kind")
        return kind

    def truth_reading(self, wildcards: Wildcards) -> Settings:
        """What the configuration says about a table of points."""
        return table_reading(self._volume(wildcards).settings.get("truth", {}))

    def truth_volume(self, wildcards: Wildcards) -> Settings | None:
        """Arguments of `voxmill.volumes.read_header` for the user's file; None for a phantom."""
        volume = self._volume(wildcards)
        return None if volume.path is None else self.original_arguments(wildcards)

    def _volume(self, wildcards: Wildcards) -> Volume:
        return self.config.volumes[wildcards.volume]

    @staticmethod
    def _is_users(volume: Volume) -> bool:
        return volume.path is not None and volume.windows

    def _path(self, volume: Volume) -> str:
        if volume.path is None:
            return f"results/{volume.name}/phantom.tif"
        return volume.path if volume.windows else f"results/{volume.name}/unpacked.nii"
