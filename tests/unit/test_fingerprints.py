"""Which content a volume has, found again without reading it."""

import dataclasses
import os
import shutil
import uuid

import numpy as np
import pytest
import tifffile

from tests.unit import zarr_files
from voxmill.runtime import disk
from voxmill.runtime.checked import write_checked_json
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes import check_source, fingerprint, fingerprints, open_volume, read_header
from voxmill.volumes.sources import check_files

SHAPE = (20, 5, 6)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with one for results, as a run has."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    return tmp_path


def voxels(seed=0):
    return np.random.default_rng(seed).integers(0, 999, SHAPE).astype("uint16")


def write_tiff(path, array):
    tifffile.imwrite(path, array, photometric="minisblack")


def write_planes(path, array):
    path.mkdir(exist_ok=True)
    for z, plane in enumerate(array):
        tifffile.imwrite(path / f"z{z:03d}.tif", plane)


def write_zarr(path, array):
    shutil.rmtree(path, ignore_errors=True)
    zarr_files.array(path, array)


def write_zip(path, array):
    zarr_files.zipped(path.with_name("zipped"), array).replace(path)


def write_set(path, array):
    """An OME-TIFF of two files, 10 planes each."""
    names = [path.name, path.name.replace(".ome", "_2.ome")]
    ids = [uuid.uuid5(uuid.NAMESPACE_URL, name) for name in names]
    parts = "".join(
        f'<TiffData FirstZ="{z}" IFD="{z % 10}" PlaneCount="1">'
        f'<UUID FileName="{names[z // 10]}">urn:uuid:{ids[z // 10]}</UUID></TiffData>'
        for z in range(20)
    )
    for index, name in enumerate(names):
        xml = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{ids[index]}"><Image ID="Image:0"><Pixels ID="Pixels:0" '
            'DimensionOrder="XYZCT" Type="uint16" SizeX="6" SizeY="5" SizeZ="20" SizeC="1" '
            f'SizeT="1"><Channel ID="Channel:0" SamplesPerPixel="1"/>{parts}</Pixels></Image></OME>'
        )
        tifffile.imwrite(
            path.with_name(name), array[10 * index : 10 * index + 10],
            photometric="minisblack", description=xml, metadata=None,
        )  # fmt: skip


KINDS = {
    "v.tif": write_tiff,
    "planes": write_planes,
    "v.zarr": write_zarr,
    "v.zarr.zip": write_zip,
    "v.ome.tif": write_set,
}


@pytest.fixture(params=KINDS)
def volume(request, place):
    """A volume of each kind, and how it is written."""
    path = place / request.param
    KINDS[request.param](path, voxels())
    return path, KINDS[request.param]


def mark(path):
    return fingerprint(read_header(path, voxel_size_um=(1, 1, 1)))


def files_of(path):
    found = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return found + sorted(path.parent.glob("v_2.ome.tif"))


def read_whole(path):
    """What a job does that reads every voxel."""
    header = read_header(path, voxel_size_um=(1, 1, 1))
    content = fingerprints.Content(header)
    with open_volume(header) as opened:
        for _, plane in opened.planes():
            content.add(plane)
    fingerprints.remember(header, content.hexdigest())


def touch(path):
    for file in files_of(path):
        os.utime(file, ns=(0, 12345678901234567))


def test_the_same_files_have_the_same_fingerprint(volume):
    path, _ = volume
    before = mark(path)
    assert mark(path) == before
    assert fingerprint(read_header(path, voxel_size_um=(1, 2, 3))) == before
    read_whole(path)
    assert mark(path) == before


@pytest.mark.parametrize(("module", "step"), [(fingerprints, "_alike"), (disk, "replace")])
def test_two_jobs_that_look_at_once_find_the_same(volume, monkeypatch, module, step):
    """The other one looks between the two looks of this one, or while its note has no name yet."""
    path, _ = volume
    real = getattr(module, step)
    others = []

    def look_first(*arguments):
        monkeypatch.setattr(module, step, real)
        others.append(mark(path))
        return real(*arguments)

    monkeypatch.setattr(module, step, look_first)
    assert [mark(path)] == others


def test_a_touched_volume_keeps_its_fingerprint_once_it_was_read_as_a_whole(volume, caplog):
    path, _ = volume
    before = mark(path)
    read_whole(path)
    touch(path)
    assert mark(path) == before
    assert "reading it" in caplog.text
    caplog.clear()
    assert mark(path) == before, "the next look reads nothing"
    assert not caplog.text


def test_a_touched_volume_that_nobody_read_counts_as_another(volume):
    path, _ = volume
    before = mark(path)
    touch(path)
    assert mark(path) != before


def test_a_copy_keeps_it_wherever_it_lies(volume):
    path, _ = volume
    before = mark(path)
    read_whole(path)
    there = path.parent / "elsewhere"
    there.mkdir()
    for file in [path, *files_of(path)[1:]] if path.is_file() else [path]:
        (shutil.copytree if file.is_dir() else shutil.copy)(file, there / file.name)
    assert mark(there / path.name) == before


def test_two_copies_have_the_same_fingerprint_in_two_runs(volume, tmp_path, monkeypatch):
    """Each run sees a file that was never read, with a date and an inode of its own."""
    path, _ = volume
    before = mark(path)
    other = tmp_path / "another run"
    (other / "results").mkdir(parents=True)
    for file in {path, *path.parent.glob("v_2.ome.tif")}:
        (shutil.copytree if file.is_dir() else shutil.copyfile)(file, other / file.name)
    monkeypatch.chdir(other)
    touch(other / path.name)
    assert mark(other / path.name) == before
    read_whole(other / path.name)
    assert mark(other / path.name) == before
    monkeypatch.chdir(tmp_path)
    read_whole(path)
    assert mark(path) == before


def test_another_content_has_the_same_fingerprint_in_two_runs(place, monkeypatch):
    """Of 16 pieces of 64 KiB none holds the voxel that differs."""
    array = np.zeros((40, 200, 300), np.uint16)
    array[20, 100, 150] = 1
    found = []
    for run in ("one", "two"):
        (place / run / "results").mkdir(parents=True)
        monkeypatch.chdir(place / run)
        write_tiff(place / run / "v.tif", np.zeros_like(array))
        first = mark(place / run / "v.tif")
        read_whole(place / run / "v.tif")
        write_tiff(place / run / "v.tif", array)
        os.utime(place / run / "v.tif", (0, len(found)))
        found.append((first, mark(place / run / "v.tif")))
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]


@pytest.mark.parametrize("resampled", [False, True])
def test_statistics_tell_of_the_content_where_the_notes_are_gone(place, resampled):
    path, array = place / "v.tif", np.zeros((40, 200, 300), np.uint16)
    write_tiff(path, array)
    before = mark(path)
    content = fingerprints.Content(read_header(path, voxel_size_um=(1, 1, 1)))
    for plane in array:
        content.add(plane)
    shape = [20, 100, 150] if resampled else list(array.shape)
    entry = {"fingerprint": before, "content": content.hexdigest(), "shape": shape}
    write_checked_json(place / "results/v/statistics.json", entry)
    shutil.rmtree(place / fingerprints.KNOWN)
    assert mark(path) == before
    shutil.rmtree(place / fingerprints.KNOWN)
    array[20, 100, 150] = 1
    write_tiff(path, array)
    # What was resampled tells nothing about the file.
    assert (mark(path) == before) == resampled


def test_another_content_of_the_same_size_is_seen(volume):
    path, write = volume
    before = mark(path)
    read_whole(path)
    array = voxels()
    array[13, 2, 3] += 1
    write(path, array)
    changed = mark(path)
    assert changed != before
    assert mark(path) == changed
    write(path, voxels())
    if path.suffix != ".zip":  # a zip holds the dates of what is in it
        assert mark(path) == before, "the old content is known still"


def test_a_voxel_between_the_pieces_is_seen_though_the_date_is_the_old_one(place):
    """Of 16 pieces of 64 bytes none holds it; the file is another one, renamed into place."""
    path, array = place / "v.tif", voxels()
    write_tiff(path, array)
    before = fingerprint(read_header(path, voxel_size_um=(1, 1, 1)), 2, 16)
    read_whole(path)
    times = os.stat(path).st_mtime_ns
    array[10, 2, 3] += 1
    write_tiff(place / "new.tif", array)
    os.utime(place / "new.tif", ns=(times, times))
    os.replace(place / "new.tif", path)
    assert fingerprint(read_header(path, voxel_size_um=(1, 1, 1)), 2, 16) != before


def test_a_plane_between_the_pieces_is_seen_where_there_are_no_results(tmp_path, monkeypatch):
    """64 planes, of which 16 are looked at; each is written again in turn."""
    monkeypatch.chdir(tmp_path)
    planes = [tmp_path / "planes" / f"z{z:03d}.tif" for z in range(64)]
    planes[0].parent.mkdir()
    rng = np.random.default_rng(0)
    for plane in planes:
        tifffile.imwrite(plane, rng.integers(0, 999, (16, 16)).astype(np.uint16))
    before = mark(planes[0].parent)
    for plane in planes:
        old = plane.read_bytes()
        tifffile.imwrite(plane, rng.integers(0, 999, (16, 16)).astype(np.uint16))
        assert mark(planes[0].parent) != before, plane.name
        plane.write_bytes(old)
    assert not (tmp_path / "results").exists()


def test_nothing_is_left_behind_where_there_are_no_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tiff(tmp_path / "v.tif", voxels())
    read_whole(tmp_path / "v.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["v.tif"]


def test_a_damaged_note_counts_as_none(place):
    path = place / "v.tif"
    write_tiff(path, voxels())
    read_whole(path)
    before = mark(path)
    (note,) = fingerprints.KNOWN.rglob("*.json")
    note.write_text(note.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
    assert mark(path) == before
    note.write_text("{")
    assert mark(path) == before


def test_a_source_that_changed_is_refused_by_name(place):
    path = place / "v.tif"
    write_tiff(path, voxels())
    header = read_header(path, voxel_size_um=(1, 1, 1))
    planned = fingerprint(header)
    check_source(header, planned)
    write_tiff(path, voxels(seed=1))
    with pytest.raises(VoxmillError, match=r"v\.tif: expected the volume .*Let it rest.*run again"):
        check_source(header, planned)
    check_source(header, "phantom of these settings")


def test_a_name_that_no_file_can_have_is_passed_over(place):
    write_tiff(place / "v.tif", voxels())
    header = read_header(place / "v.tif")
    named = '<OME><UUID FileName="%s.ome.tif"/></OME>' % ("x" * 300)
    tifffile.imwrite(place / "v.ome.tif", voxels(), description=named, metadata=None)
    header = dataclasses.replace(header, path=str(place / "v.ome.tif"), format="OME-TIFF")
    assert fingerprints._files(header) == [place / "v.ome.tif"]


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(place):
    os.mkfifo(place / "truth.csv")
    with pytest.raises(VoxmillError, match=r"truth\.csv: expected a file, found a pipe"):
        fingerprints.path_fingerprint(place / "truth.csv")


def test_a_single_file_is_digested_once(place, monkeypatch):
    path = place / "truth.csv"
    path.write_text("z_vox,y_vox,x_vox\n1,2,3\n")
    before = fingerprints.path_fingerprint(path)
    os.utime(path, (0, 0))
    assert fingerprints.path_fingerprint(path) == before
    with monkeypatch.context() as patched:
        patched.setattr(fingerprints, "sha256", None)
        assert fingerprints.path_fingerprint(path) == before
    check_files([None, path], [before])
    path.write_text("z_vox,y_vox,x_vox\n1,2,4\n")
    os.utime(path, (0, 0))
    assert fingerprints.path_fingerprint(path) != before
    with pytest.raises(VoxmillError, match=r"truth\.csv: expected the file .*run again"):
        check_files([path], [before])
