"""Folders of planes: which names make one stack, in which order, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes import fingerprint, open_volume, read_header
from voxmill.volumes.plane_names import order_planes

FOLDER = Path("stack")
Z = range(12)


def order(names, **choice):
    """The order of names that are given in the order of z: their places in it."""
    names = list(names)
    ordered, _ = order_planes(FOLDER, sorted(names), **choice)
    return [names.index(name) for name in ordered]


def refused(names, match, **choice):
    with pytest.raises(VoxmillError, match=match):
        order_planes(FOLDER, sorted(names), **choice)


WHOLE = {
    "LaVision": [f"10-43-24_cFos_UltraII_C00_xyz-Table Z{z:04d}.ome.tif" for z in Z],
    "mesoSPIM": [f"m1_Mag1x_Tile0_Ch488_Sh0_Rot0_{z:06d}.tiff" for z in Z],
    "Zeiss": [f"Snap_b0t0z{z:03d}c0x0-1920y0-1920.tif" for z in Z],
    "Zeiss, ORG": [f"Snap_s1z{z:03d}c1_ORG.tif" for z in Z],
    "Micro-Manager": [f"img_channel000_position000_time000000000_z{z:03d}.tif" for z in Z],
    "Micro-Manager 1.4": [f"img_000000000_DAPI_{z:03d}.tif" for z in Z],
    "TeraStitcher": [f"000000_012340_{50 * z:06d}.tif" for z in Z],
    "time stamps": [f"b_Z{z:04d}_T{100000 + 137 * z + z % 3}.tif" for z in Z],
    "clock": [f"Z{z:02d}_10-{43 + 25 * z // 60:02d}-{25 * z % 60:02d}.tif" for z in Z],
    "two planes a second": [f"z{z}_{104300 + 2 * z // 3}.tif" for z in Z],
    "every second": [f"2024-05-06_m12_z{2 * z}.tif" for z in Z],
    "from 100": [f"m3_488_z{100 + z}.tif" for z in Z],
    "no zeros": [f"plane {z}.tif" for z in Z],
    "hyphens": [f"slice-{z:03d}.tif" for z in Z],
    "called as channels are": [f"c{z:03d}.tif" for z in Z],
    "below zero": [f"scan_z{5 * z - 30}.tif" for z in Z],
    "all below zero": [f"scan_z_{5 * z - 100}.tif" for z in Z],
    "plus": [f"scan_z{5 * z - 30:+04d}.tif" for z in Z],
    "decimals": [f"scan_z{z / 4}.tif" for z in Z],
    "decimals below zero": [f"scan_z{z / 4 - 1:.2f}um.tif" for z in Z],
    "decimal commas": [f"scan {z / 4 - 1:.2f}".replace(".", ",") + ".tif" for z in Z],
    "stage": [f"s_z{5 * z + (z * 7 % 5 - 2) / 20:.3f}.tif" for z in Z],
    "rounded": [f"{5 * z // 2}.tif" for z in Z],
    "both endings": [f"Z{z}.{'TIF' if z % 2 else 'tif'}" for z in Z],
    "letters": ["a.tif", "b.tif", "c.tif"],
}


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_stacks_are_read_in_the_order_of_z(kind):
    assert order(WHOLE[kind]) == list(range(len(WHOLE[kind])))


SEVERAL = {
    "LaVision": (
        [f"10-00_UltraII_C0{c}_xyz-Table Z{z:04d}.ome.tif" for c in (0, 1) for z in Z],
        r"found also C00, C01, as in .*C00_xyz-Table Z0000.* and .*C01.*`channel`",
        "*_C01_*",
    ),
    "LaVision mosaic": (
        [f"UltraII[00 x 0{y}]_C00_xyz-Table Z{z:04d}.ome.tif" for y in (0, 1) for z in Z],
        r"found also x00, x01, as in .*00 x 01",
        "*00 x 01*",
    ),
    "Zeiss": (
        [f"Snap_s{s}z{z:03d}c1_ORG.tif" for s in (1, 2) for z in Z],
        r"found also s1, s2.*such as \"\*s1\*\"",
        "*s2z*",
    ),
    "mesoSPIM": (
        [f"m1_Mag1x_Tile{t}_Ch488_Rot0_{z:06d}.tiff" for t in (0, 1) for z in Z],
        "found also Tile0, Tile1",
        "*Tile1*",
    ),
    "Micro-Manager channels": (
        [f"img_channel00{c}_position000_time0_z{z:03d}.tif" for c in (0, 1) for z in Z],
        "found also channel000, channel001",
        "*channel001*",
    ),
    "Micro-Manager positions": (
        [f"img_channel000_position00{p}_time0_z{z:03d}.tif" for p in (0, 1) for z in Z],
        "found also position000, position001",
        "*position001*",
    ),
    "Micro-Manager times": (
        [f"img_channel000_position000_time00{t}_z{z:03d}.tif" for t in (0, 1) for z in Z],
        "found also time000, time001",
        "*time001*",
    ),
    "channels by name": (
        [f"img_000000000_{c}_{z:03d}.tif" for c in ("DAPI", "GFP") for z in Z],
        "names of one pattern, found 12 as img_000000000_DAPI_000.tif and 12 others: .*GFP_000",
        "*GFP*",
    ),
    "a running number": (
        [f"{c * 12 + z:04d}_{c}_{z}.tif" for c in (0, 1) for z in Z],
        "found also 0, 1",
        "*_1_*",
    ),
    "channels in one count": (
        [f"img_C{c}_{c * 12 + z:04d}.tif" for c in (0, 1) for z in Z],
        "found also C0, C1",
        "*C1*",
    ),
    "channels with time stamps": (
        [f"C{c}_Z{z:04d}_T{100000 * c + 137 * z:06d}.tif" for c in (0, 1) for z in Z],
        "found also C0, C1",
        "C1*",
    ),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_stacks_are_refused_and_a_pattern_chooses(kind):
    names, match, pattern = SEVERAL[kind]
    refused(names, match)
    assert order(names, pattern=pattern) == list(range(12, 24))


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["MAX_brain.tif"], r"and 1 other: MAX_brain.tif.*such as \"brain_Z\*.tif\""),
        (["brain_Z0003 - Copy.tif"], r"1 other: brain_Z0003 - Copy.tif.*\[0-9\]\.tif\""),
        (["brain_Z0003 (2).tif"], r"1 other: brain_Z0003 \(2\).tif"),
        (["brain_Z0003-1.tif"], "1 other: brain_Z0003-1.tif"),
        (["AVG_brain_Z0003.tif", "STD_brain_Z0003.tif"], "2 others: AVG_.*, STD_"),
        (["brain_Z003.tif"], "two with the same number: brain_Z0003.tif and brain_Z003.tif"),
        (["brain_Z0003.tiff"], "two with the same number"),
        (["brain_Z0099.tif"], "missing between brain_Z0011.tif and brain_Z0099.tif"),
    ],
)
def test_a_file_that_is_no_plane(names, match):
    refused([f"brain_Z{z:04d}.tif" for z in Z] + names, match)


@pytest.mark.parametrize("kind", ["LaVision", "time stamps", "below zero", "decimals", "clock"])
def test_a_lost_plane_is_named(kind):
    names = WHOLE[kind]
    lost = [name for i, name in enumerate(names) if i != 5]
    with pytest.raises(VoxmillError, match="planes seem to be missing between") as caught:
        order_planes(FOLDER, sorted(lost))
    assert names[4] in str(caught.value)
    assert names[6] in str(caught.value)


def test_other_names_that_are_no_stack():
    refused(["b_ch1.tif", "b_ch2.tif"], "found also ch1, ch2.*`channel`")
    refused(["front.tif", "mid.tif", "back.tif"], "found back.tif, front.tif, mid.tif. Number")
    hashes = [f"z{z:02d}_{z * 7919 % 1009}.tif" for z in Z]
    refused(hashes, r"such as 'z\(\[0-9\]\+\)'")
    assert order(hashes, pattern="z([0-9]+)") == list(range(12))
    refused([f"z{z}.tif" for z in (0, 10, 20, 21, 30, 40)], "even distances, found a step of 1 ")


def test_a_channel_is_counted_from_0():
    names = [f"brain_ch{c}_Z{z}.tif" for c in (1, 2) for z in Z]
    assert order(names, channel=0) == list(range(12))
    assert order_planes(FOLDER, names, channel=1)[1] == 1
    assert order(names, channel=1) == list(range(12, 24))
    refused(
        names, "channel 2 doesn't exist: expected 0 to 1, as the names hold ch1, ch2", channel=2
    )
    refused([*names[:-1], "Z7.tif"], "one pattern", channel=1)
    refused([n for n in names if n != "brain_ch2_Z5.tif"], "missing between", channel=1)
    lasers = [f"m3_{laser}_z{z}.tif" for laser in (488, 561) for z in Z]
    assert order(lasers, channel=1) == list(range(12, 24))
    times = [f"time{t}_z{z}.tif" for t in (0, 1) for z in Z]
    refused(times, "channel 1 doesn't exist: the planes have one, 0", channel=1)


def test_patterns():
    names = [f"C0{c}_Z{z:04d}.tif" for c in (0, 1) for z in Z]
    assert order(names, pattern=r"C01_Z(\d+)") == list(range(12, 24))
    assert order(names, pattern=r"C(?P<c>01)_Z(?P<z>\d+)") == list(range(12, 24))
    assert order([f"-{z}_{z / 2 - 3}.tif" for z in Z], pattern=r"_(-?[0-9.]+)\.tif") == list(Z)
    refused(names, r"finds the number 0 in C00_Z0000.tif and in C01_Z0000.tif", pattern=r"Z(\d+)")
    refused(names, "expected names such as X", pattern="X*")
    refused(names, r"names in which X\(\\d\) is found", pattern=r"X(\d)")
    refused(names, "expected a regular expression", pattern=r"Z(\d+")
    refused(names, "expected a number in the group", pattern=r"(C\d)")
    refused(names[:5] + names[6:12], "missing between C00_Z0004", pattern="C00*")
    refused(names[:5] + names[6:12], "missing between C00_Z0004", pattern=r"Z(\d+)")
    assert order([f"scan (1) z{z}.tif" for z in Z], pattern="scan (1) z*") == list(Z)


@settings(max_examples=200, deadline=None)
@given(
    start=st.integers(-500, 500),
    step=st.integers(1, 50),
    count=st.integers(4, 30),
    digits=st.integers(0, 2),
    prefix=st.sampled_from(["z", "brain_Z", "m12_2024-05-06_z", "C00_", "x_"]),
    data=st.data(),
)
def test_any_even_positions(start, step, count, digits, prefix, data):
    """Positions in even steps are read in their order; without an inner plane they are refused."""
    if prefix.endswith("_") or start >= 0:
        positions = [start + step * i for i in range(count)]
    else:
        positions = [start + step * i for i in range(-(start // step) + count)]
    names = [f"{prefix}{position / 10**digits:.{digits}f}.tif" for position in positions]
    assert order(names) == list(range(len(names)))
    lost = data.draw(st.integers(1, len(names) - 2))
    refused(names[:lost] + names[lost + 1 :], "missing|expected one stack|one pattern")


def write_planes(folder, names):
    folder.mkdir()
    for value, name in enumerate(names):
        tifffile.imwrite(folder / name, np.full((8, 9), value, "uint16"))
    return folder


def values(header):
    with open_volume(header) as volume:
        return [int(plane[0, 0]) for _, plane in volume.planes()]


def test_headers_windows_and_fingerprints_of_a_chosen_stack(tmp_path):
    names = [f"C0{c}_Z{z:04d}.tif" for c in (0, 1) for z in range(6)]
    path = write_planes(tmp_path / "two", names)
    header = read_header(path, channel=1)
    assert (header.shape, header.channel) == ((6, 8, 9), 1)
    assert values(header) == list(range(6, 12))
    chosen = read_header(path, pattern="C01*")
    assert values(chosen) == list(range(6, 12))
    assert values(read_header(path, pattern=r"C00_Z(\d+)")) == list(range(6))
    digests = {fingerprint(read_header(path, pattern=f"C0{c}*")) for c in (0, 1)}
    assert len(digests) == 2
    with pytest.raises(VoxmillError, match="`pattern` is for a folder of TIFF planes, found TIFF"):
        read_header(path / names[0], pattern="C*")


def test_planes_below_zero_are_read_in_rising_order(tmp_path):
    path = write_planes(tmp_path / "signed", [f"z{z}.tif" for z in range(-20, 25, 5)])
    assert values(read_header(path)) == list(range(9))
