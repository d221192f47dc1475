"""What is read of users and by later jobs: whole files of each kind, and what reads them."""

import dataclasses
import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import tifffile
import yaml

from tests.unit import hdf5_files, volume_files, zarr_files
from voxmill.cells.table import read_cells
from voxmill.config.files import check_text
from voxmill.config.networks import MSDNetSettings
from voxmill.config.normalisation import Normalisation
from voxmill.denoising import nifti as scans
from voxmill.denoising.scans import load as load_scans
from voxmill.evaluation.ground_truth import read_truth
from voxmill.networks.models import ModelCard, load_stored, read_card
from voxmill.runtime.checked import write_checked_json
from voxmill.runtime.files import sha256
from voxmill.tiles.plan import Plan, PlannedVolume, read_plan, write_plan
from voxmill.tiles.plan_volume import _largest_halo
from voxmill.tiles.predicted import (
    PlannedImage,
    PredictedTile,
    read_predicted,
    read_row_manifest,
    write_row_manifest,
)
from voxmill.volumes import (
    LABEL_DTYPES,
    fingerprint,
    open_volume,
    read_header,
    read_tile,
    unpack,
    write_tile,
)
from voxmill.volumes.grey_values import read_grey_values
from voxmill.volumes.measure_volume import measure_volume
from voxmill.volumes.normalisation import make_normaliser
from voxmill.volumes.shard_files import StoredShard
from voxmill.workflow import configuration

SHAPE = (3, 20, 24)
ROOT = Path(__file__).resolve().parents[2]


def read_volume(path):
    """As a run does: header, fingerprint and a window, of grey values and of labels."""
    header = read_header(path)
    fingerprint(header)
    if header.windows:
        with open_volume(header) as volume:
            volume.read_window((0, 0, 0), tuple(min(n, 30) for n in header.shape))
    elif header.nbytes < 1 << 24:
        unpack(header, Path(path).with_name("unpacked.nii"))
    read_header(path, dtypes=LABEL_DTYPES)


def read_scan(path):
    """As a fit does, and as the volume of a run."""
    scans.read_scan(path)


def read_table(path):
    """As a ground truth."""
    read_truth(path, "points", SHAPE, (2.0, 1.0, 1.0))


def read_model(path):
    """A card and its weights."""
    read_card(path).receptive_radius_vox  # noqa: B018
    load_stored(path)


def read_configuration(path):
    """As the Snakefile does, after Snakemake's own reader."""
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    check_text(text, str(path))
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return  # Snakemake's to refuse, before voxmill sees it
    if isinstance(content, dict):
        load_scans(configuration.load(content).settings)


def read_statistics(path):
    """Statistics of a volume with their blocks, and what a prediction takes of them."""
    values = read_grey_values(path)
    for kind in ("global", "local"):
        settings = Normalisation.from_dict({"kind": kind}).plain()
        make_normaliser(values.statistics, values.blocks, settings, values.tissue.blocks)


PLAN = Plan(PlannedVolume(SHAPE, "uint16", (2.0, 1.0, 1.0)), "f", (3, 10, 12), (1, 1, 1))


def stored_arrays():
    """The arrays that the predictions of the plan become."""
    storage = {"dtype": "uint16", "compression": "zstd"}
    return PlannedImage.planned("probability.ome.zarr", PLAN, storage).arrays


def read_row(path):
    """A list of shards."""
    read_row_manifest(path, stored_arrays())


def volumes(folder):
    """A volume of each kind of file, by name."""
    array = volume_files.small_numbers(shape=SHAPE)
    kinds = ("tiff", "tiff zlib", "tiff tiles", "bigtiff", "pages", "ome", "ome tiles", "imagej",
             "nifti", "nifti-2", "nifti.gz", "nifti big-endian")  # fmt: skip
    found = {}
    for index, name in enumerate(kinds):
        found[name] = volume_files.WRITERS[name](folder / f"v{index}", array)
    found["hdf5"] = hdf5_files.plain(folder / "h", array, chunks=(1, 16, 16), compression="gzip")
    found["fiji"] = hdf5_files.fiji(folder / "f", array)
    found["imaris"] = hdf5_files.imaris(folder / "i", [lambda t, c: array])
    return found


def header_bytes(path):
    """Positions in a file's headers: tags of a TIFF, or the first bytes."""
    size = path.stat().st_size
    try:
        with tifffile.TiffFile(path) as tif:
            tags = [tag.offset for page in tif.pages for tag in page.aspage().tags]
        return [at + step for at in tags for step in (0, 2, 4, 8)]
    except tifffile.TiffFileError:
        if path.name.endswith(".gz"):
            return list(range(min(size, 40)))
        return list(range(min(size, 352 if ".nii" in path.name else 2000)))


def packed_nifti(path, content):
    """A gzipped NIfTI of changed bytes: what gzip's own checksum would refuse first."""
    path.write_bytes(gzip.compress(content, 1))
    return path


def ome_xml(path, text):
    """A TIFF with an OME-XML of one's own."""
    array = volume_files.small_numbers(shape=SHAPE)
    with tifffile.TiffWriter(path) as writer:
        for index, plane in enumerate(array):
            description = text.encode() if index == 0 else None
            writer.write(plane, metadata=None, contiguous=False, description=description)
    return path


OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">
<Image ID="Image:0" Name="a"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16"
SizeX="24" SizeY="20" SizeZ="3" SizeC="1" SizeT="1" PhysicalSizeX="0.5" PhysicalSizeXUnit="um"
PhysicalSizeY="0.5" PhysicalSizeZ="2.0" PhysicalSizeZUnit="um" BigEndian="false">
<Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="3"
FirstZ="0" FirstC="0" FirstT="0"><UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>
<Plane TheZ="0" TheC="0" TheT="0" PositionX="1.0" PositionY="1.0" PositionZ="0.0"/>
<Plane TheZ="1" TheC="0" TheT="0" PositionX="1.0" PositionY="1.0" PositionZ="2.0"/>
</Pixels></Image></OME>"""


def zarr_stores(folder):
    """A plain array and an image of each version."""
    array = volume_files.small_numbers(shape=SHAPE)
    names = ("v2 blosc", "v3 zstd", "v3 sharded")
    found = {name: zarr_files.ARRAYS[name](folder / name, array) for name in names}
    for version in (2, 3):
        root = folder / f"ome {version}"
        root.mkdir()
        zarr_files.array(root / "0", array, version)
        scale = [{"type": "scale", "scale": [2.0, 1.0, 1.0]}]
        axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]
        multiscales = [
            {"version": "0.4" if version == 2 else "0.5", "axes": axes, "name": "a",
             "datasets": [{"path": "0", "coordinateTransformations": scale}]}
        ]  # fmt: skip
        if version == 2:
            (root / ".zgroup").write_text('{"zarr_format": 2}')
            (root / ".zattrs").write_text(json.dumps({"multiscales": multiscales}))
        else:
            attributes = {"ome": {"version": "0.5", "multiscales": multiscales}}
            group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
            (root / "zarr.json").write_text(json.dumps(group))
        found[root.name] = root
    return found


def write_model(folder, card=None):
    """Weights of a small network as plain bytes, and its card."""
    from safetensors.numpy import save_file

    settings = MSDNetSettings(depth=2, width=1, dilations=(1, 2))
    arrays = {n: np.zeros(s, np.float32) for n, s in settings.tensor_shapes().items()}
    path = folder / "m.safetensors"
    save_file(arrays, path)
    made = ModelCard("m", "msdnet", dataclasses.asdict(settings), weights_sha256=sha256(path))
    path.with_suffix(".json").write_text(json.dumps(dataclasses.asdict(made)))
    return path


def new_digest(path):
    """A card that fits weights which were changed, so that they are read."""
    card = path.with_suffix(".json")
    content = json.loads(card.read_text()) | {"weights_sha256": sha256(path)}
    card.write_text(json.dumps(content))


CONFIGURATION = yaml.safe_load((ROOT / "config.yaml").read_text())


def write_tile_file(path):
    """A tile as `cut_tiles` writes it."""
    array = volume_files.small_numbers(shape=SHAPE)
    write_tile(path, array, extra={"key": "abc"})
    return path


def check_tile(path):
    read_tile(path, SHAPE, "uint16", {"key": "abc"}, "Run again.")


def job_files(folder):
    """Write a JSON file of each kind that later jobs read."""
    write_plan(folder / "plan.json", PLAN)
    shard = StoredShard("c/0/0/0", 100, "0" * 64)
    PredictedTile("z0000_y0000_x0000", {"tile": "k"}, shard).write(folder / "prediction.json")
    write_row_manifest(folder / "row.json", stored_arrays()[0], [shard])
    write_checked_json(folder / "halo.json", {"halo_vox": [1, 2, 2], "errors": [0.1]})
    volume = volume_files.tiff(folder / "measured", volume_files.small_numbers(shape=SHAPE))
    measure_volume(
        volume={"path": str(volume), "voxel_size_um": [2.0, 1.0, 1.0]},
        tissue="none",
        output_path=folder / "statistics.json",
        blocks_path=folder / "grey_blocks.npz",
    )


def read_halo(path):
    return _largest_halo([str(path)], "f")


JOB_FILES = {
    "plan.json": read_plan,
    "prediction.json": read_predicted,
    "row.json": read_row,
    "halo.json": read_halo,
    "statistics.json": read_statistics,
}


TABLES = {
    "csv": "z_vox,y_vox,x_vox,name\n1,2,3,a\n2.5,3.5,4.5,b\n0,0,0,\n",
    "um": '"","z_um","y_um","x_um"\n"1",1.0,2.0,3.0\n"2",2.0,3.0,4.0\n',
    "semicolon": "z_vox;y_vox;x_vox\n1,5;2;3\n2,5;3;4\n",
    "napari": "index,axis-0,axis-1,axis-2\n0,1.0,2.0,3.0\n1,2.0,3.0,4.0\n",
    "tsv": "z_vox\ty_vox\tx_vox\n1\t2\t3\n",
}
MARKERS = """<?xml version="1.0" encoding="UTF-8"?>
<CellCounter_Marker_File><Image_Properties><Image_Filename>a.tif</Image_Filename>
</Image_Properties><Marker_Data><Current_Type>1</Current_Type><Marker_Type><Type>1</Type>
<Marker><MarkerX>3</MarkerX><MarkerY>2</MarkerY><MarkerZ>1</MarkerZ></Marker>
</Marker_Type></Marker_Data></CellCounter_Marker_File>"""
CELLS = (
    "id,z_vox,y_vox,x_vox,z_um,y_um,x_um,score,volume_um3\n"
    "1,1.0000,2.0000,3.0000,2.0000,2.0000,3.0000,0.9,5.0000\n"
)
FILE_READERS = {
    "volume.tif": read_volume,
    "volume.nii": read_volume,
    "volume.h5": read_volume,
    "volume.zarr": read_volume,
    "scan.nii.gz": read_scan,
    "truth.csv": read_table,
    "truth.xml": read_table,
    "cells.csv": read_cells,
    "m.safetensors": read_model,
    "tile.tif": check_tile,
} | JOB_FILES


def copy_store(source, target):
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target
