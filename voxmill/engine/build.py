"""The native engine's libraries: compiled for this machine once, then loaded from a cache.

The cache is `$XDG_CACHE_HOME/voxmill`, or `.cache/voxmill` under the repository's root; its key is
made of sources, compiler and CPU. A library is code: it is loaded only if it and its folder belong
to this user, or to the owner of voxmill's code, and if it has the digest that was written beside it
when it was compiled. Any other one is compiled again. `NativeShape` and the functions below it
describe a network and a box to the libraries.
"""

import ctypes
import functools
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from voxmill.config.networks import MSDNetSettings
from voxmill.engine.backend import Shape
from voxmill.runtime import disk, locks
from voxmill.runtime.cpu import cpu_flags
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import sha256, visible, write_text
from voxmill.runtime.owned import open_own, own_folder
from voxmill.runtime.paths import cache_folder

logger = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent / "native"
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
_QUIET = ("-Wno-ignored-attributes",)  # templates drop the alignment of vector types as arguments
_REMEDY = "Set XDG_CACHE_HOME to a folder of yours."


def compiler() -> str | None:
    """Path of the C++ compiler: `$CXX`, else g++, else c++; None if there is none."""
    for name in (os.environ.get("CXX"), "g++", "c++"):
        if name and (path := shutil.which(name)):
            return path
    return None


def build(source: str, compiler_path: str, folder: Path | None = None) -> Path:
    """Path of the shared library of `native/<source>.cpp`, compiled if it isn't in the cache.

    Parameters
    ----------
    source : str
        Name of the source without its suffix.
    compiler_path : str
    folder : path, optional
        The cache; by default that of `cache_folder`.

    Returns
    -------
    Path

    Raises
    ------
    subprocess.CalledProcessError
        If the compiler fails; its `stderr` holds the compiler's message.
    """
    folder = folder or cache_folder()
    version = subprocess.run(
        [compiler_path, "--version"], capture_output=True, text=True, check=True
    ).stdout
    digest = hashlib.sha256("\0".join([compiler_path, version, cpu_flags(), *_FLAGS]).encode())
    for path in visible(_FOLDER, "*.[ch]pp"):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    library = folder / f"{source}-{digest.hexdigest()[:16]}.so"
    own_folder(folder, _REMEDY, trusted())
    if is_whole(library):
        return library
    # One process compiles while others wait; the rename makes the whole library appear at once.
    lock_path = folder / f"{source}.lock"
    with os.fdopen(open_own(lock_path, os.O_RDWR | os.O_CREAT), "r+") as held:
        locks.lock(held.fileno(), lock_path, wait=True)
        if not is_whole(library):
            _compile(source, compiler_path, library)
    return library


def _compile(source: str, compiler_path: str, library: Path) -> None:
    """Compile one source to a library with its digest beside it."""
    if library.exists() or library.is_symlink():
        logger.warning("%s: damaged or not yours: compiling it again", library)
        library.unlink()
    logger.info("compiling %s for this machine (once)", source)
    # A folder that only this user can enter: nothing can be changed in it before the rename.
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".compile-") as folder:
        scratch = Path(folder) / library.name
        command = [
            compiler_path,
            *_FLAGS,
            *_QUIET,
            str(_FOLDER / f"{source}.cpp"),
            "-o",
            str(scratch),
        ]
        subprocess.run(command, capture_output=True, text=True, check=True)
        digest = sha256(scratch)
        write_text(_digest_path(library), digest + "\n")
        disk.replace(scratch, library)


def is_whole(library: Path) -> bool:
    """Whether a library is a file of this user with the digest that was written beside it."""
    try:
        with os.fdopen(open_own(library, os.O_RDONLY, owners=trusted()), "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        beside = open_own(_digest_path(library), os.O_RDONLY, owners=trusted())
        with os.fdopen(beside, "rb") as file:
            return found.encode() == file.read(100).strip()
    except (OSError, ValueError):
        return False


def trusted() -> set[int]:
    """Users whose libraries are loaded: the administrator, and the owner of this very code."""
    return {0, Path(__file__).stat().st_uid}


def _digest_path(library: Path) -> Path:
    return library.with_suffix(".sha256")


@functools.cache
def load(source: str) -> ctypes.CDLL | str:
    """The loaded library, or the reason why there is none (logged as a warning, once a process)."""
    path = compiler()
    if path is None:
        reason = "there is no C++ compiler (g++)"
    else:
        try:
            return ctypes.CDLL(str(build(source, path)))
        except subprocess.CalledProcessError as error:
            reason = f"{path} failed on {source}.cpp: {error.stderr.strip()[-500:]}"
        except OSError as error:
            reason = f"the compiled {source} can't be stored or loaded: {error}"
        except VoxmillError as error:
            reason = str(error)
    logger.warning("the native engine is not used: %s; the PyTorch engine is slower", reason)
    return reason


def loaded(source: str) -> ctypes.CDLL:
    """The loaded library.

    Raises
    ------
    VoxmillError
        If there is none: the message says why.
    """
    library = load(source)
    if isinstance(library, str):
        raise VoxmillError(f"the native engine can't be used here: {library}")
    return library


class NativeShape(ctypes.Structure):
    """First fields of each library's settings: the network's shape and the box."""

    _fields_: ClassVar[Sequence[tuple[str, Any]]] = (
        ("inputs", ctypes.c_int32),
        ("outputs", ctypes.c_int32),
        ("depth", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("box", ctypes.c_int32 * 3),
    )


def native_shape(settings: MSDNetSettings, box_shape: Shape) -> tuple[int, int, int, int, Shape]:
    """Values of `NativeShape`'s fields."""
    return settings.inputs, settings.outputs, settings.depth, settings.width, tuple(box_shape)


def native_dilations(settings: MSDNetSettings) -> ctypes.Array[ctypes.c_int32]:
    """The dilation of each layer, as a C array."""
    return (ctypes.c_int32 * settings.depth)(*map(settings.dilation, range(settings.depth)))


if __name__ == "__main__":
    for name in [path.stem for path in visible(_FOLDER, "*.cpp")]:
        load(name)
