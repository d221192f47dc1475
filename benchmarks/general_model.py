"""One model for cells of any size: trained on all stains, judged on a stain that it has not seen.

    python benchmarks/general_model.py lovo --work results/general
    python benchmarks/general_model.py train --work results/general

Volumes of c-Fos and microglia (`benchmarks/real_data.py`), of nuclei, and phantoms are resampled so
that their cells have a diameter of 8 voxels. `lovo` leaves each stain out in turn: a network is
trained on all else, and finds the cells of the stain's volumes. Its threshold is the best one on
eighths of its training volumes that were kept out of the training, so that nothing of the stain is
used but the diameter of its cells; the model becomes `without-STAIN.safetensors` in the work folder
(`hundred_clicks.py` starts from it). The difference of Gaussians (scale and threshold, on grey
values with the general model's normalisation) is tuned on the volumes of the other stain. `train`
trains on all and writes `models/cells.safetensors`.
"""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import left_out
import real_data
import rivals
from phantom_model import varied

from voxmill.config.phantoms import PhantomSettings
from voxmill.config.training import Augmentation, TrainingSettings
from voxmill.geometry import Box, Resampling, VoxelSize
from voxmill.networks import models
from voxmill.phantoms.make_phantom import draw_labelled, write_truth
from voxmill.runtime.files import sha256, write_json, writing
from voxmill.training.loop import TrainingResult, train
from voxmill.training.open_sources import open_sources
from voxmill.training.sources import Source
from voxmill.training.train_network import make_card
from voxmill.training.validation import find_points, predict_box
from voxmill.volumes import write_planes
from voxmill.volumes.blocks import ArrayVolume

# Typical diameters. The voxel size of the microglia volumes is not stated; it is taken to be that
# of c-Fos, of the same microscope: with it cells are round. Nuclei 1137 and 1170 are left out: only
# the low byte of their 16 bits was kept, and what is left is noise.
DIAMETERS_UM = {"cfos": 13.0, "microglia": 20.0, "nuclei": 3.5, "phantom": 12.0}
LIGHT_SHEET_UM = real_data.VOXEL_SIZES_UM["cfos"]
# In cfos_1147 nearly all cells are marked at x < 100 and hardly any beyond, though they look alike.
TRAINED = {"cfos_1147": "0:200, 0:200, 0:100"}
NUCLEI, NUCLEI_UM = "nuclei_1135", (0.284, 0.127, 0.127)
NUCLEI_SOURCE = "nuclei of plant ovules (go-nuclear, Vijayan et al., EMBL)"
NUCLEI_LICENCE = "MIT, Copyright (c) 2024 Qin Yu and Anna Kreshuk, EMBL"
PHANTOM_SEEDS = range(120, 124)
PHANTOM_SHAPE = (64, 160, 160)
DOG_SCALES = (0.4, 0.55, 0.7, 0.85)
# An eighth of each real volume is kept out of the training, to choose the threshold; phantoms and
# nuclei touch more than real cells do, and have no say.
HELD = {"cfos": "0:50, 100:200, 0:200", "microglia": "150:200, 100:200, 0:200"}
HELD_OF = {"cfos_1147": "0:50, 100:200, 0:100"}
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

SETTINGS = TrainingSettings(
    # All lengths are for cells of 13 um: blocks and regions of grey values, whose sizes are fixed
    # in micrometres (`voxmill.volumes.grey_maps`), then stand to the cells as for c-Fos.
    cell_diameter_um=13.0,
    cell_diameter_vox=8.0,
    target="mask",
    positive_weight=1.0,
    network={"kind": "msdnet", "depth": 12, "width": 4, "dilations": (1, 2, 3, 4)},
    detector={"min_volume_um3": 100.0, "border_share": 0.25},
    normalisation={"kind": "local", "background_um": 40.0, "contrast": "cells", "scale": 3.0},
    dim_share=0.3,
    augmentation=Augmentation(
        rotate="yx", scale=0.4, shift=0.2, noise=0.1, gradient=0.3, layer=0.3, seam=0.2
    ),
    patch_vox=(48, 48, 48),
    steps=300,
    validate_every=300,
    checkpoint_every=50,
    learning_rate=1e-2,
)


def apart(labels: np.ndarray, reach: tuple[int, int, int]) -> np.ndarray:
    """The mask of labels without the voxels near another label: touching cells stay two."""
    size = [2 * r + 1 for r in reach]
    largest = ndimage.maximum_filter(labels, size)
    most = np.iinfo(labels.dtype).max
    least = ndimage.minimum_filter(np.where(labels, labels, most), size)
    return ((labels > 0) & (largest == labels) & (least == labels)).astype(np.uint8)


def prepared(work: Path, nuclei: Path) -> dict[str, dict]:
    """Sections of nuclei and phantoms as a configuration has them; files in the work folder."""
    sections = {}
    for name in (NUCLEI, *(f"phantom_{seed}" for seed in PHANTOM_SEEDS)):
        files = [work / f"{name}{end}" for end in (".tif", "_mask.tif", ".csv")]
        size = NUCLEI_UM if name == NUCLEI else PhantomSettings().voxel_size_um
        sections[name] = _section(name, *files, size)
        if files[2].exists():
            continue
        array, mask, points = _nuclei(nuclei) if name == NUCLEI else _phantom(int(name[-3:]))
        for path, content in zip(files[:2], (array, mask), strict=True):
            write_planes(path, content, content.shape, content.dtype, size, "zlib")
        write_truth(files[2], points)
    return sections


def _nuclei(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grey values, mask and centroids of the nuclei.

    Mirrored at the last faces along y and x: resampled, the volume is smaller than a patch.
    """
    array, labels = (
        np.pad(tifffile.imread(folder / name), ((0, 0), (0, 100), (0, 100)), "symmetric")
        for name in (f"{NUCLEI}.ome.tif", f"{NUCLEI}_labels.ome.tif")
    )
    mask = apart(labels, (1, 2, 2))
    parts, count = ndimage.label(mask)
    return array, mask, np.array(ndimage.center_of_mass(mask, parts, np.arange(1, count + 1)))


def _phantom(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    array, points, labels = draw_labelled(varied(seed, shape_vox=PHANTOM_SHAPE))
    return array, apart(labels, (1, 1, 1)), points


def _section(name, volume, mask, truth, size, validation=None, region=None) -> dict:
    return {
        "path": str(volume),
        "voxel_size_um": size,
        "truth": {"path": str(truth)},
        "mask": str(mask),
        "cell_diameter_um": DIAMETERS_UM[name.partition("_")[0]],
        "region": region,
        "validation": validation,
    }


def stained(folder: Path) -> dict[str, dict]:
    """Sections of the light-sheet volumes."""
    sections = {}
    for name in [name for names in real_data.VOLUMES.values() for name in names]:
        files = (folder / f"{name}{end}" for end in (".tif", "_mask.tif", "_centroids.csv"))
        validation = HELD_OF.get(name, HELD[name.partition("_")[0]])
        region = (real_data.REGIONS | TRAINED).get(name)
        sections[name] = _section(name, *files, LIGHT_SHEET_UM, validation, region)
    return sections


def in_memory(sections: dict[str, dict]) -> tuple[list[Source], dict[str, dict]]:
    """Sources that are resampled once, not for each patch, and their records for the card."""
    opened, records = [], {}
    for name, section in sections.items():
        sources, records[name] = open_sources(name, section, SETTINGS)
        whole = Box.from_shape(sources[0].volume.shape)
        volume, mask = (
            ArrayVolume(part.read_window(*whole)) for part in (sources[0].volume, sources[0].mask)
        )
        opened += [dataclasses.replace(s, volume=volume, mask=mask) for s in sources]
    return opened, records


def network_of(name: str, sources: list[Source], options) -> TrainingResult:
    """A network trained on some volumes; a stopped training goes on by its name."""
    checkpoint = options.work / f"{name}.checkpoint"
    return train(sources, SETTINGS, "cpu", options.threads, checkpoint)


def resampled_grid(name: str) -> Resampling:
    """How voxels of a light-sheet volume became those of the model.

    Shapes have no part in this: the first faces of the two grids are one.
    """
    edge_um = DIAMETERS_UM[name.partition("_")[0]] / SETTINGS.cell_diameter_vox
    return Resampling((1, 1, 1), VoxelSize.of(LIGHT_SHEET_UM), VoxelSize.of([edge_um] * 3))


def finder_of(name: str, source: Source, trained: TrainingResult, options) -> Callable:
    """What finds the cells of a light-sheet volume at a threshold, in its own voxels."""
    path = options.work / f"{name}.npy"
    if not path.exists():
        whole, grey = Box.from_shape(source.volume.shape), SETTINGS.normalisation
        maps = predict_box(trained.network, source, whole, grey, "cpu", options.threads, 200)
        with writing(path) as scratch, open(scratch, "wb") as file:
            np.save(file, maps[0].astype(np.float16))
    probability = np.load(path).astype(np.float32)
    grid = resampled_grid(name)

    def find(threshold: float) -> np.ndarray:
        found, _ = find_points(probability, SETTINGS, source.voxel_size_um, threshold)
        return grid.to_own(found)

    return find


def rivals_of(options) -> tuple[dict[str, dict[str, left_out.Volume]], dict[str, left_out.Runs]]:
    """Ground truth of each stain's volumes, and runs of the difference of Gaussians on them."""
    volumes, runs = {}, {}
    for stain, names in real_data.VOLUMES.items():
        own = {name: real_data.read_source(name, options.data) for name in names}
        volumes[stain] = {name: real_data.truth_of(source) for name, source in own.items()}
        grey = SETTINGS.normalisation
        runs[stain] = rivals.dog(volumes[stain], own, grey, ("local",), DOG_SCALES)
    return volumes, runs


def run_lovo(options) -> None:
    """Leave each stain out in turn."""
    sources, records = in_memory(stained(options.data) | prepared(options.work, options.nuclei))
    whole = {s.name.removesuffix("-1"): s for s in sources}
    volumes, dogs = rivals_of(options)
    rows: dict[str, dict[str, dict]] = {}
    for stain, other in (("microglia", "cfos"), ("cfos", "microglia")):
        setting, dog_threshold, _ = left_out.choose(dogs[other], None)
        others = [s for s in sources if not s.name.startswith(stain)]
        trained = network_of(f"without-{stain}", others, options)
        threshold = trained.validation["threshold"]
        logging.info("without %s: threshold %.2f", stain, threshold)
        seen = {name: record for name, record in records.items() if not name.startswith(stain)}
        card = make_card(f"without-{stain}", SETTINGS, trained, others, {"volumes": seen})
        models.save(options.work / f"{card.name}.safetensors", trained.network, card)
        for name, volume in volumes[stain].items():
            find = finder_of(name, whole[name], trained, options)
            run = left_out.Run(
                volume, np.array(THRESHOLDS), lambda t, f=find, v=volume: _kept(v, f(t))
            )
            rival = dogs[stain][name][setting]
            rows[name] = {
                "general model": left_out.judge(run, threshold),
                "difference of Gaussians": left_out.judge(rival, dog_threshold),
            }
            print(name, run.f1.round(3).tolist(), flush=True)
    print(
        left_out.table(_by_method(rows), {k: v for of in volumes.values() for k, v in of.items()})
    )
    for stain, names in real_data.VOLUMES.items():
        for method in rows[names[0]]:
            mean = np.mean([rows[name][method]["f1"] for name in names])
            print(f"{stain}, {method}: mean F1 {mean:.3f}")
    write_json(options.work / "general.json", rows)


def _kept(volume: left_out.Volume, points: np.ndarray) -> np.ndarray:
    return points[volume.kept(points)]


def _by_method(rows: dict[str, dict[str, dict]]) -> dict[str, dict[str, dict]]:
    methods = next(iter(rows.values()))
    return {method: {name: of[method] for name, of in rows.items()} for method in methods}


def run_training(options) -> None:
    """Train on all volumes."""
    sections = stained(options.data) | prepared(options.work, options.nuclei)
    sources, records = in_memory(sections)
    trained = network_of("without-nothing", sources, options)
    training = {
        "command": "python benchmarks/general_model.py train",
        "source": f"{real_data.SOURCE}; {NUCLEI_SOURCE}; synthetic volumes of voxmill.phantoms",
        "licence": f"{real_data.LICENCE}; {NUCLEI_LICENCE}; phantoms: BSD-3-Clause, as voxmill",
        "volumes": records,
    }
    output = options.models / "cells.safetensors"
    models.save(output, trained.network, make_card("cells", SETTINGS, trained, sources, training))
    logging.info("%s: %s, %s", output, sha256(output), trained.validation)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    for name, run in (("lovo", run_lovo), ("train", run_training)):
        command = commands.add_parser(name)
        command.add_argument("--work", type=Path, required=True, help="folder for what is made")
        command.add_argument("--data", type=Path, default=real_data.DATA)
        command.add_argument("--nuclei", type=Path, default=real_data.DATA.parent / "nuclei")
        command.add_argument("--models", type=Path, default=Path("models"))
        command.add_argument("--threads", type=int, default=1)
        command.set_defaults(run=run)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("voxmill.engine").setLevel(logging.WARNING)
    options.run(options)


if __name__ == "__main__":
    main()
