"""NIfTI-1 and NIfTI-2, plain and gzipped. The file's axes are x, y, z; ours are z, y, x."""

import contextlib
import gzip
import math
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import writing
from voxmill.volumes.header import VolumeAxes, VolumeHeader, check_dtype, find_axes
from voxmill.volumes.nifti_relatives import refuse_relative
from voxmill.volumes.nifti_scale import voxel_size
from voxmill.volumes.windows import RawWindows, Windows

_PIECE = 1 << 22
"""Bytes to unpack at a time."""

_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


@dataclass(frozen=True)
class _Nifti:
    """What a NIfTI header says; `header` is nibabel's."""

    header: Any
    axes: VolumeAxes
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    scale: tuple[float, float] | None

    @property
    def end(self) -> int:
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def matches(path: Path, head: bytes) -> bool:
    """Whether the file is a NIfTI in one file, gzipped or not."""
    if path.is_dir():
        return False
    if not is_gzip(head) and _version(head) is None:
        refuse_relative(path, head)
        return False
    return True


def is_gzip(head: bytes) -> bool:
    """Whether the first bytes are those of a gzip file."""
    return head[:2] == b"\x1f\x8b"


def _version(head: bytes) -> int | None:
    if head[344:347] == b"n+1":
        return 1
    return 2 if head[4:7] == b"n+2" else None


def read_header(path: Path, channel: int | None, dtypes: tuple[str, ...]) -> VolumeHeader:
    """Header of a NIfTI volume; see `voxmill.volumes.read_header`.

    Stored values with a slope and an intercept (`scl_slope`, `scl_inter`) are read as
    `stored * slope + intercept` in float32.
    """
    packed = is_gzip(_head(path))
    nifti = _parse(path, packed, channel)
    dtype = check_dtype(path, nifti.dtype, dtypes)
    if nifti.scale:
        dtype = check_dtype(path, np.dtype(np.float32), dtypes)
    if packed:
        _check_gzip_size(path, nifti.end)
    elif (size := path.stat().st_size) < nifti.end:
        raise VoxmillError(
            f"{path}: truncated: the header announces {nifti.end} bytes, found {size}. Copy or "
            "write the file again."
        )
    voxel_size_um, source = voxel_size(nifti.header, nifti.axes)
    z, y, x = nifti.axes.zyx
    return VolumeHeader(
        path=str(path),
        format="NIfTI.gz" if packed else "NIfTI",
        shape=(nifti.shape[z], nifti.shape[y], nifti.shape[x]),
        dtype=dtype,
        voxel_size_um=voxel_size_um,
        voxel_size_source=source,
        channel=nifti.axes.channel,
        windows=not packed,
        file_shape=nifti.shape,
        file_axes=_axes(nifti.shape),
    )


def open_windows(header: VolumeHeader) -> Windows:
    """Windows of a NIfTI: raw reads, or a sequential decoder for a gzipped one."""
    path = Path(header.path)
    nifti = _parse(path, not header.windows, header.channel)
    # NIfTI stores its first axis fastest.
    strides = np.cumprod([nifti.dtype.itemsize, *nifti.shape[:-1]]).tolist()
    channel_axis, channel = nifti.axes.channel_axis, nifti.axes.channel
    skip = 0 if channel_axis is None or channel is None else strides[channel_axis] * channel
    zyx = [strides[axis] for axis in nifti.axes.zyx]
    known = header, nifti.dtype, nifti.offset + skip, zyx, nifti.scale
    return RawWindows(*known) if header.windows else GzipWindows(*known, end=nifti.end)


class GzipWindows(RawWindows):
    """Windows of a gzipped NIfTI: everything before a window is decoded to reach it.

    Planes in rising order cost one pass and no disk space. The first window that lies before an
    earlier one makes an unpacked copy in the temporary folder (TMPDIR), which is deleted when the
    process ends; `unpack` makes a copy to keep.
    """

    def __init__(
        self,
        header: VolumeHeader,
        dtype: np.dtype,
        offset: int,
        strides: Sequence[int],
        scale: tuple[float, float] | None,
        *,
        end: int,
    ):
        super().__init__(header, dtype, offset, strides, scale)
        self._end = end
        self._packed: gzip.GzipFile | None = gzip.GzipFile(fileobj=self._file)

    def close(self) -> None:
        """Release the file, and the temporary copy."""
        if self._packed:
            self._packed.close()
        super().close()

    def _read(self, position: int, count: int, z: int) -> bytes:
        if self._packed and position < self._packed.tell():
            self._unpack()
        if not self._packed:
            return super()._read(position, count, z)
        with _decoding(self.header.path):
            self._packed.seek(position)
            data = self._packed.read(count)
            if len(data) < count:
                raise EOFError(f"plane {z} ends early")
            # gzip compares its checksum at the end of the file, never before.
            while position + count >= self._end and self._packed.read(_PIECE):
                pass
        return data

    def _unpack(self) -> None:
        copy = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 closed by close()
        try:
            _copy_unpacked(self.header.path, self._end, copy)
        except BaseException:
            copy.close()
            raise
        self.close()
        self._packed, self._file = None, copy


def unpack(header: VolumeHeader, output_path: str | Path) -> None:
    """Decompress a gzipped NIfTI to a plain one, whole or not at all, in bounded memory.

    Raises
    ------
    VoxmillError
        If the file is no gzipped NIfTI, or is truncated or damaged.
    """
    if header.format != "NIfTI.gz":
        raise VoxmillError(
            f"{header.path}: expected a gzipped NIfTI to unpack, found {header.format}, whose "
            "windows can be read as it is."
        )
    end = _parse(Path(header.path), True, header.channel).end
    with writing(output_path) as scratch, open(scratch, "wb") as output:
        _copy_unpacked(header.path, end, output)


def _copy_unpacked(path: str, end: int, output: IO[bytes]) -> None:
    written = 0
    with gzip.open(path, "rb") as packed:
        while True:
            with _decoding(path):
                data = packed.read(_PIECE)
            if not data:
                break
            written += len(data)
            rest = memoryview(data)
            try:
                while rest:  # an unbuffered file may take a part
                    rest = rest[output.write(rest) :]
            except OSError as error:
                raise VoxmillError(
                    f"{path}: can't be unpacked to {output.name} ({error.strerror}): {end} bytes "
                    "are needed there; for a temporary copy, TMPDIR chooses the folder."
                ) from None
    if written < end:
        raise VoxmillError(
            f"{path}: truncated: the header announces {end} unpacked bytes, found {written}. Copy "
            "or write the file again."
        )


@contextlib.contextmanager
def _decoding(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError, zlib.error) as error:
        raise VoxmillError(
            f"{path}: truncated or damaged gzip data ({error}). Copy or write the file again."
        ) from None


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(2)


def _parse(path: Path, packed: bool, channel: int | None) -> _Nifti:
    from nibabel import Nifti1Header, Nifti2Header  # slow to import, needed for this format alone
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    with _decoding(path), (gzip.open if packed else open)(path, "rb") as file:
        head = file.read(352)
        version = _version(head)
        if version is None:
            refuse_relative(path, head)
            raise VoxmillError(
                f"{path}: expected a NIfTI in one file (n+1 or n+2), found other data. If it is a "
                "volume of another format, unpack it with `gunzip`."
            )
        file.seek(0)
        try:
            kind = Nifti1Header if version == 1 else Nifti2Header
            header = kind.from_fileobj(file, check=False)
            shape = tuple(int(n) for n in header.get_data_shape())
            dtype = header.get_data_dtype()
            scale = _scale(path, header)
            offset = _offset(header)
            if not 1 <= len(shape) <= 7 or min(shape) < 1:
                raise ValueError(f"dim {shape}")
        except VoxmillError:
            raise
        except (
            HeaderDataError,
            WrapStructError,
            LookupError,
            ValueError,
            ArithmeticError,
            MemoryError,  # an extension that claims to be larger than the memory
        ) as error:
            raise VoxmillError(
                f"{path}: damaged or truncated NIfTI header ({error}). Copy the file again."
            ) from None
    if dtype.fields:
        raise VoxmillError(
            f"{path}: expected grey values, found a colour image (RGB). Save one channel of it."
        )
    axes = find_axes(path, shape, _axes(shape), channel)
    return _Nifti(header, axes, shape, dtype, offset, scale)


def _offset(header: Any) -> int:
    """Byte at which the voxels begin."""
    offset, least = float(header["vox_offset"]), int(header.single_vox_offset)
    if offset == 0:  # some writers leave it out: the voxels follow the header
        return least
    if not math.isfinite(offset) or offset < least or offset != int(offset):
        raise ValueError(f"vox_offset {offset:g}, expected at least {least}")
    return int(offset)


def _axes(shape: tuple[int, ...]) -> str:
    """A letter per axis; a fourth one holds channels, also where the header calls it time."""
    if len(shape) == 4 and shape[0] == 1 and shape[3] > 1:
        return "CXYZ"
    return ("XYZC" + "T" * len(shape))[: len(shape)]


def _scale(path: Path, header: Any) -> tuple[float, float] | None:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):  # the standard's way to say "not scaled"
        return None
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise VoxmillError(
            f"{path}: expected finite scl_slope and scl_inter, found {slope} and {intercept}."
        )
    return None if (slope, intercept) == (1.0, 0.0) else (slope, intercept)


def _check_gzip_size(path: Path, end: int) -> None:
    """Compare the unpacked size at the end of a gzip file with the header's; nothing is decoded."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - len(_BGZF_END)))
        tail = file.read()
    if tail == _BGZF_END:  # blocked gzip: the last block is empty, and marks a whole file
        return
    (unpacked,) = struct.unpack("<I", tail[-4:].rjust(4, b"\0"))
    if unpacked != end % 2**32:
        raise VoxmillError(
            f"{path}: truncated or damaged: the header announces {end} unpacked bytes, the end of "
            f"the gzip data says {unpacked} (modulo 2^32). Copy the file again; if `gunzip` "
            "unpacks it without an error, give the unpacked file."
        )
