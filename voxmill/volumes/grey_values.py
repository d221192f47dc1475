"""What one pass over a volume measures: grey values of the tissue, its blocks, where tissue is.

Kept in two files side by side: a JSON file, and the arrays of the blocks (NumPy's .npz), whose
digest the JSON file holds.
"""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxmill.runtime.checked import DamagedFileError, read_checked_json, write_checked_json
from voxmill.runtime.files import writing
from voxmill.volumes.grey_blocks import GreyBlocks
from voxmill.volumes.normalisation import Normaliser, make_normaliser
from voxmill.volumes.sources import check_statistics
from voxmill.volumes.tissue import Tissue

_REMAKE = "Delete it and run again: the volume is then measured anew."


@dataclass(frozen=True)
class GreyValues:
    """What is known about the grey values of a volume.

    Parameters
    ----------
    statistics : dict
        See `voxmill.volumes.measure_volume.measure`.
    blocks : GreyBlocks
    tissue : Tissue
    """

    statistics: dict[str, Any]
    blocks: GreyBlocks
    tissue: Tissue

    def normaliser(self, normalisation: dict[str, Any]) -> Normaliser:
        """What normalises the windows of the volume as a card says.

        Parameters
        ----------
        normalisation : dict
            See `voxmill.config.normalisation.Normalisation`.

        Raises
        ------
        VoxmillError
            If a setting is wrong, or the tissue has no contrast.
        """
        return make_normaliser(self.statistics, self.blocks, normalisation, self.tissue.blocks)


def write_grey_values(
    values: GreyValues, statistics_path: str | Path, blocks_path: str | Path
) -> None:
    """Write both files; the JSON file comes last, as it vouches for the other.

    Parameters
    ----------
    values : GreyValues
    statistics_path, blocks_path : path
        In one folder.
    """
    content = io.BytesIO()
    np.savez_compressed(content, levels=values.blocks.levels, tissue=values.tissue.blocks)
    data = content.getvalue()
    with writing(blocks_path, len(data)) as scratch:
        scratch.write_bytes(data)
    blocks = {
        "file": Path(blocks_path).name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "edge_vox": list(values.blocks.edge_vox),
        "edge_um": list(values.blocks.edge_um),
    }
    write_checked_json(statistics_path, values.statistics | {"blocks": blocks})


def read_grey_values(statistics_path: str | Path, planned: str | None = None) -> GreyValues:
    """Read what `write_grey_values` wrote.

    Parameters
    ----------
    statistics_path : path
    planned : str, optional
        Fingerprint of the volume that they must be of.

    Raises
    ------
    VoxmillError
        If a file is missing, damaged, of another measurement than the other one, or of another
        volume.
    """
    statistics = read_checked_json(statistics_path, "statistics", _REMAKE)
    if "blocks" not in statistics:
        raise DamagedFileError(
            f"{statistics_path}: expected statistics with the key 'blocks', found those of an "
            f"earlier voxmill. {_REMAKE}"
        )
    check_statistics(statistics_path, statistics, planned)
    try:
        return _with_blocks(statistics, Path(statistics_path))
    except DamagedFileError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise DamagedFileError(
            f"{statistics_path}: expected statistics and blocks of grey values, found those of "
            f"another voxmill ({type(error).__name__}: {error}). {_REMAKE}"
        ) from None


def _with_blocks(statistics: dict[str, Any], statistics_path: Path) -> GreyValues:
    """Grey values of a volume from its statistics and the blocks that they name."""
    about = statistics["blocks"]
    path = statistics_path.parent / about["file"]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DamagedFileError(
            f"{path}: these blocks of grey values cannot be read ({error.strerror}). {_REMAKE}"
        ) from None
    if hashlib.sha256(data).hexdigest() != about["sha256"]:
        raise DamagedFileError(
            f"{path}: damaged, or of another measurement than {statistics_path}. {_REMAKE}"
        )
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        levels, mask = arrays["levels"], arrays["tissue"]
    shape, edge_vox = tuple(statistics["shape"]), tuple(about["edge_vox"])
    blocks = GreyBlocks(shape, edge_vox, tuple(about["edge_um"]), levels)
    return GreyValues(statistics, blocks, Tissue(shape, edge_vox, mask))
