"""Files of feature maps that neighbours read parts of: bricks, each with a checksum.

A brick holds all maps of a stage on a cube of voxels. Whoever needs the margin of a tile reads,
and verifies, the bricks there and no others.
"""

import json
import struct
import zlib
from pathlib import Path

import numpy as np

from voxmill.blocks import block_list
from voxmill.errors import VoxmillError
from voxmill.files import writing
from voxmill.tiling import Triple, inside

_MAGIC = b"voxmaps1"
_BRICK_VOX = 32
_HEAD = struct.Struct("<8sI")


def write_maps(path: str | Path, maps: np.ndarray, extra: dict) -> None:
    """Write maps, whole or not at all; the same content gives the same bytes.

    Parameters
    ----------
    path : path
    maps : (maps, z, y, x) float32 array
        Of a tile's core.
    extra : dict
        JSON content that `MapFile` compares, such as the tile's key.
    """
    boxes = block_list(maps.shape[1:], _BRICK_VOX)
    checks = [zlib.crc32(_brick(maps, box)) for box in boxes]
    header = {"shape": list(maps.shape), "brick_vox": _BRICK_VOX, "crc32": checks, "extra": extra}
    text = json.dumps(header, sort_keys=True).encode()
    with writing(path) as scratch, open(scratch, "wb") as file:
        file.write(_HEAD.pack(_MAGIC, len(text)) + text)
        for box in boxes:
            file.write(_brick(maps, box))


def _brick(maps: np.ndarray, box) -> np.ndarray:
    part = maps[(slice(None), *inside(*box, (0, 0, 0)))]
    return np.ascontiguousarray(part, dtype="<f4")


class MapFile:
    """A file of `write_maps`, read box by box.

    Parameters
    ----------
    path : path
    shape : (4,) int
        Maps, z, y, x that are expected.
    extra : dict
        Keys and values that it must have been written with.
    remake : str
        What the user does about a broken file; ends the message.

    Raises
    ------
    VoxmillError
        If the file is missing, cut short, damaged or another one.
    """

    def __init__(self, path: str | Path, shape: tuple[int, ...], extra: dict, remake: str):
        self.path, self.shape, self._remake = Path(path), tuple(shape), remake
        header = self._header()
        found = {"shape": tuple(header["shape"])} | {k: header["extra"].get(k) for k in extra}
        for key, expected in ({"shape": self.shape} | extra).items():
            if found[key] != expected:
                raise self._broken(f"expected {key} {expected}, found {found[key]}")
        boxes = block_list(self.shape[1:], header["brick_vox"])
        self._bricks, offset = [], self._offset
        for box, check in zip(boxes, header["crc32"], strict=True):
            size = 4 * self.shape[0] * int(np.prod(np.subtract(box[1], box[0])))
            self._bricks.append((box, check, offset, size))
            offset += size
        if self.path.stat().st_size != offset:
            raise self._broken(f"expected {offset} bytes, found {self.path.stat().st_size}")

    def _header(self) -> dict:
        try:
            with open(self.path, "rb") as file:
                magic, length = _HEAD.unpack(file.read(_HEAD.size))
                if magic != _MAGIC:
                    raise ValueError("another file")
                header = json.loads(file.read(length))
        except FileNotFoundError:
            raise self._broken("these maps do not exist") from None
        except (ValueError, struct.error) as error:
            raise self._broken(
                f"expected maps of a stage, found a damaged file ({error})"
            ) from None
        self._offset = _HEAD.size + length
        return header

    def _broken(self, what: str) -> VoxmillError:
        return VoxmillError(f"{self.path}: {what}. {self._remake}")

    def read(self, start: Triple, stop: Triple, into: np.ndarray) -> None:
        """Read the half-open box [start, stop) of the core into a (maps, z, y, x) array."""
        with open(self.path, "rb") as file:
            for box, check, offset, size in self._bricks:
                lower = tuple(map(max, start, box[0]))
                upper = tuple(map(min, stop, box[1]))
                if any(a >= b for a, b in zip(lower, upper, strict=True)):
                    continue
                file.seek(offset)
                data = file.read(size)
                if zlib.crc32(data) != check:
                    raise self._broken(f"damaged: the brick at {box[0]} has another checksum")
                edges = np.subtract(box[1], box[0])
                brick = np.frombuffer(data, "<f4").reshape(self.shape[0], *edges)
                part = brick[(slice(None), *inside(lower, upper, box[0]))]
                into[(slice(None), *inside(lower, upper, start))] = part
