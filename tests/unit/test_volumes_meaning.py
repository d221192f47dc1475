"""What a volume's metadata mean: the right image's size, signed grey values, parts of sets."""

import numpy as np
import pytest
import tifffile
import volume_files

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes import LABEL_DTYPES, open_volume, read_header

STACK = np.arange(6 * 20 * 24, dtype="uint16").reshape(6, 20, 24)


def whole(path, **options):
    header = read_header(path, **options)
    with open_volume(header) as volume:
        return header, volume.read_window((0, 0, 0), header.shape)


def physical(z, y, x):
    return {"PhysicalSizeZ": z, "PhysicalSizeY": y, "PhysicalSizeX": x}


def write_images(path, *images):
    with tifffile.TiffWriter(path, ome=True) as writer:
        for array, axes, size in images:
            writer.write(array, metadata={"axes": axes} | physical(*size))
    return path


OVERVIEW = (np.zeros((40, 50), "uint16"), "YX", (1, 10, 10))


@pytest.mark.parametrize("overview_first", [True, False])
def test_an_overview_in_the_same_file_has_a_size_of_its_own(tmp_path, overview_first):
    images = [OVERVIEW, (STACK, "ZYX", (5, 2, 1.5))]
    path = write_images(tmp_path / "o.ome.tif", *(images if overview_first else images[::-1]))
    header, voxels = whole(path)
    assert header.voxel_size_um == (5, 2, 1.5)
    assert np.array_equal(voxels, STACK)


def test_an_overview_as_large_as_the_planes(tmp_path):
    overview = (np.zeros(STACK.shape[1:], "uint16"), "YX", (1, 10, 10))
    path = write_images(tmp_path / "o.ome.tif", overview, (STACK, "ZYX", (5, 2, 1.5)))
    assert read_header(path).voxel_size_um == (5, 2, 1.5)


def test_two_images_that_could_both_be_the_volume(tmp_path):
    """Of two descriptions of one shape that disagree, none is believed."""
    path = volume_files.ome(tmp_path / "v", STACK)
    with tifffile.TiffFile(path) as tif:
        xml = tif.ome_metadata
    image = xml[xml.index("<Image") : xml.index("</Image>") + len("</Image>")]
    second = image.replace('PhysicalSizeX="0.5"', 'PhysicalSizeX="2"')
    second = second[: second.index("<TiffData")] + "</Pixels></Image>"
    with tifffile.TiffWriter(path) as writer:
        writer.write(STACK, description=xml.replace(image, image + second), metadata=None)
    header = read_header(path)
    assert header.voxel_size_um is None
    assert "2 images of several voxel sizes" in header.voxel_size_source


def imagej(path, array, *lines, **metadata):
    """What Fiji saves: its lines of calibration come after those that tifffile writes."""
    metadata = {"axes": "ZYX", "unit": "um"} | metadata
    tifffile.imwrite(path, array, imagej=True, resolution=(1 / 1.6, 1 / 2), metadata=metadata)
    if lines:
        with tifffile.TiffFile(path) as tif:
            text = tif.pages.first.description
        tifffile.tiffcomment(path, "\n".join([text.strip("\n\0"), *lines, ""]).encode())
    return path


def test_a_spacing_that_imagej_leaves_out(tmp_path):
    header = read_header(imagej(tmp_path / "v.tif", STACK))
    assert header.voxel_size_um is None
    assert "ImageJ leaves out if it is 1 um" in header.voxel_size_source
    assert read_header(imagej(tmp_path / "w.tif", STACK, spacing=5)).voxel_size_um == (5, 2, 1.6)


SIGNED = ("cf=0", "c0=-32768.0", "c1=1.0", "vunit=Gray Value")


def test_signed_16_bit_of_imagej(tmp_path):
    """Fiji stores signed numbers 32768 larger; a mask's 0 would be 32768."""
    signed = STACK.astype("int16") - 1000
    stored = (signed.astype("int32") + 32768).astype("uint16")
    header, voxels = whole(imagej(tmp_path / "v.tif", stored, *SIGNED))
    assert header.dtype == "int16"
    assert np.array_equal(voxels, signed)
    assert np.array_equal(whole(tmp_path / "v.tif", dtypes=LABEL_DTYPES)[1], signed)
    with tifffile.TiffFile(tmp_path / "v.tif") as tif:
        text = tif.pages.first.description
    with tifffile.TiffWriter(tmp_path / "c.tif", imagej=False) as writer:
        for z, plane in enumerate(stored):
            comment = text if z == 0 else None
            writer.write(plane, description=comment, metadata=None, compression="zlib")
    assert np.array_equal(whole(tmp_path / "c.tif")[1], signed)


def test_signed_16_bit_planes(tmp_path):
    (tmp_path / "planes").mkdir()
    for z in range(6):
        path = tmp_path / "planes" / f"z{z}.tif"
        imagej(path, np.full((8, 9), 32768 + z, "uint16"), *SIGNED, axes="YX")
    header, voxels = whole(tmp_path / "planes")
    assert header.dtype == "int16"
    assert voxels[:, 0, 0].tolist() == list(range(6))
    imagej(path, np.full((8, 9), 5, "uint16"), axes="YX")
    with pytest.raises(VoxmillError, match="All planes of a folder"):
        read_header(tmp_path / "planes")


@pytest.mark.parametrize(
    ("lines", "read"),
    [
        (("cf=0", "c0=0", "c1=0.5"), True),
        (("cf=20",), True),
        (("cf=0", "c0=255", "c1=-1"), False),
        (("cf=4", "c0=1", "c1=2"), False),
        (("cf=21",), False),
    ],
)
def test_other_calibrations_of_imagej(tmp_path, lines, read):
    path = imagej(tmp_path / "v.tif", STACK, *lines)
    if read:
        assert np.array_equal(whole(path)[1], STACK)
        return
    with pytest.raises(VoxmillError, match="bends or inverts"):
        read_header(path)


def binary_only(path, metadata_file, planes):
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        f'UUID="urn:uuid:1"><BinaryOnly MetadataFile="{metadata_file}" UUID="urn:uuid:0"/></OME>'
    )
    with tifffile.TiffWriter(path) as writer:
        for z, plane in enumerate(planes):
            writer.write(plane, description=None if z else xml, metadata=None, contiguous=False)
    return path


def test_a_later_file_of_a_set(tmp_path):
    path = binary_only(tmp_path / "MMStack_1.ome.tif", "MMStack.ome.tif", STACK[3:])
    with pytest.raises(VoxmillError, match=r"MMStack\.ome\.tif is missing"):
        read_header(path)
    volume_files.ome(tmp_path / "MMStack", STACK[:3])
    with pytest.raises(VoxmillError, match=r"Give .*MMStack\.ome\.tif; the others"):
        read_header(path)
    with tifffile.TiffWriter(
        path, ome=False
    ) as writer:  # as Micro-Manager 1.4: no OME-XML but in the first
        for plane in STACK[3:]:
            writer.write(plane, metadata=None, contiguous=False)
    with pytest.raises(VoxmillError, match="a later file of a set"):
        read_header(path)
    assert read_header(tmp_path / "MMStack.ome.tif").shape[0] == 3


def test_a_later_file_of_a_set_without_its_first_one(tmp_path):
    with tifffile.TiffWriter(tmp_path / "s_Pos0_1.ome.tif", ome=False) as writer:
        for plane in STACK[3:]:
            tags = [(51123, 2, 0, '{"FrameIndex": 0}', False)]
            writer.write(plane, metadata=None, contiguous=False, extratags=tags)
    with pytest.raises(VoxmillError, match=r"s_Pos0\.ome\.tif is missing"):
        read_header(tmp_path / "s_Pos0_1.ome.tif")


def test_a_companion_file(tmp_path):
    """What no other file belongs to is whole; one of several is refused."""
    path = binary_only(tmp_path / "a.ome.tif", "set.companion.ome", STACK)
    assert np.array_equal(whole(path)[1], STACK)
    data = "".join(
        f'<TiffData><UUID FileName="{n}.ome.tif">urn:{n}</UUID></TiffData>' for n in "ab"
    )
    (tmp_path / "set.companion.ome").write_text(f"<OME>{data}</OME>")
    with pytest.raises(VoxmillError, match=r"one of the 2 files that set\.companion\.ome"):
        read_header(path)


def test_planes_and_volumes_that_are_not_fetched(tmp_path):
    folder = volume_files.folder(tmp_path / "planes", STACK)
    for name in ("plane_3.tif", "plane_0.tif"):
        (folder / name).unlink()
        (folder / name).symlink_to("../.git/annex/objects/ab/cd/MD5E-s4.tif")
        with pytest.raises(VoxmillError, match=rf"{name}: .*not fetched yet: run `datalad get"):
            read_header(folder)
    link = tmp_path / "v.tif"
    link.symlink_to(".git/annex/objects/ab/cd/MD5E-s4.tif")
    with pytest.raises(VoxmillError, match=r"v\.tif: .* not fetched yet"):
        read_header(link)
    (tmp_path / "p.nii").write_text("/annex/objects/MD5E-s4.nii\n")
    with pytest.raises(VoxmillError, match=r"p\.nii: .* not fetched yet"):
        read_header(tmp_path / "p.nii")
    (tmp_path / "l.tif").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(VoxmillError, match="git lfs pull"):
        read_header(tmp_path / "l.tif")
