"""Volumes far larger than the memory that the process may have."""

import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Everything is imported before the limit is set, so that the limit is on the work alone.
PREAMBLE = """
import gzip, resource, sys
from pathlib import Path
import imagecodecs, nibabel, numpy as np, tifffile, tqdm
from voxmill.volumes.measure_volume import measure
from voxmill.volumes import *

folder = Path(sys.argv[1])
MIB = 2**20
np.ones((10, 10)) @ np.ones((10, 10))
imagecodecs.zlib_decode(imagecodecs.zlib_encode(bytes(100)))


def allow(mebibytes):
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = in_use + mebibytes * MIB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def sparse_nifti(path, shape):
    header = nibabel.Nifti2Header()
    header.set_data_dtype("uint16")
    header.set_data_shape(shape[::-1])
    header["vox_offset"] = 544
    with open(path, "wb") as file:
        header.write_to(file)
        file.truncate(544 + 2 * int(np.prod(shape)))


def sparse_tiff(path, shape):
    tifffile.imwrite(path, shape=shape, dtype="uint16", bigtiff=True)
"""


def run_limited(code):
    script = PREAMBLE + textwrap.dedent(code)
    # Not pytest's tmp_path, which would keep gigabytes for three runs.
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", script, folder], cwd=ROOT, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
class TestMemory:
    def test_limit_is_felt(self):
        """Without this the tests below could not fail."""
        with pytest.raises(AssertionError, match="MemoryError"):
            run_limited("allow(64); np.ones(65 * MIB, 'uint8')")

    @pytest.mark.parametrize("kind", ["tiff", "nifti"])
    def test_window_of_a_volume_of_12_gb(self, kind):
        run_limited(
            f"""
            shape = (3000, 2000, 1000)
            sparse_{kind}(folder / "volume", shape)
            with open(folder / "volume", "r+b") as file:  # the last voxel
                file.seek((544 if "{kind}" == "nifti" else
                    tifffile.TiffFile(folder / "volume").pages[0].dataoffsets[0])
                    + 2 * (3000 * 2000 * 1000 - 1))
                file.write(bytes([7, 0]))
            allow(64)
            header = read_header(folder / "volume")
            assert header.shape == shape and header.nbytes > 11e9
            fingerprint(header)
            with open_volume(header) as volume:
                window = volume.read_window((2950, 1800, 500), (3000, 2000, 1000))
            assert window[-1, -1, -1] == 7 and window.sum() == 7
            """,
        )

    def test_volume_of_6_gb_with_a_channel_axis_of_length_1(self):
        run_limited(
            """
            sparse_tiff(folder / "volume", (2304, 1280, 1024, 1))
            allow(64)
            header = read_header(folder / "volume")
            assert header.shape == (2304, 1280, 1024)
            with open_volume(header) as volume:
                window = volume.read_window((1536, 1024, 512), (1600, 1280, 1024))
            assert window.shape == (64, 256, 512) and not window.any()
            """,
        )

    def test_statistics_and_points_of_a_volume_eight_times_the_limit(self):
        run_limited(
            """
            sparse_tiff(folder / "volume", (256, 1024, 1024))
            with tifffile.TiffFile(folder / "volume") as tif:
                offset = tif.pages[0].dataoffsets[0]
            with open(folder / "volume", "r+b") as file:
                file.seek(offset + 200 * 2 * MIB)
                file.write(bytes([1, 0, 9, 0]))
            allow(64)
            header = read_header(folder / "volume")
            assert measure(header)["maximum"] == 9
            assert read_points(header).tolist() == [[200.0, 0.0, 0.0]]
            """,
        )

    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_written_volume_eight_times_the_limit(self, compression):
        run_limited(
            f"""
            allow(64)
            plane = np.zeros((1024, 1024), "float32")
            planes = (plane + z for z in range(128))
            path = folder / "volume.ome.tif"
            write_planes(path, planes, (128, 1024, 1024), "float32", (1, 1, 1), {compression!r})
            with open_volume(read_header(path)) as volume:
                window = volume.read_window((100, 1000, 0), (128, 1024, 1024))
            assert (window[:, 5, 5] == np.arange(100, 128)).all()
            """,
        )

    def test_unpacked_volume_four_times_the_limit(self):
        run_limited(
            """
            shape = (128, 1024, 1024)
            sparse_nifti(folder / "plain.nii", shape)
            with open(folder / "plain.nii", "rb") as file, \\
                    gzip.open(folder / "volume.nii.gz", "wb", compresslevel=1) as packed:
                while piece := file.read(MIB):
                    packed.write(piece)
            allow(64)
            header = read_header(folder / "volume.nii.gz")
            assert not header.windows
            unpack(header, folder / "unpacked.nii")
            assert read_header(folder / "unpacked.nii").shape == shape
            with open_volume(header) as volume:
                assert volume.read_window((127, 0, 0), shape).shape == (1, 1024, 1024)
            """,
        )

    def test_page_of_a_tile_four_times_the_limit(self):
        run_limited(
            """
            array = np.zeros((128, 1024, 1024), "uint16")
            write_tile(folder / "tile.tif", array)
            del array
            allow(64)
            with tile_pages(folder / "tile.tif", (128, 1024, 1024), "uint16") as pages:
                assert sum(int(pages.read(z).max()) for z in range(128)) == 0
            """,
        )
