"""Accuracy on real light-sheet volumes that a method has not seen.

    python benchmarks/accuracy.py lovo --stain cfos --work results/lovo
    python benchmarks/accuracy.py train --stain cfos --work results/lovo

`lovo` leaves each volume of a stain out in turn (`benchmarks/real_data.py` lists them). A network
is trained on the others, and predicts the one left out; its detector and threshold are those of the
best mean F1 on the other volumes, each predicted by the network that had not seen it. Difference of
Gaussians, gradient boosting and cellfinder's detector (`benchmarks/rivals.py`) are tuned in the
same way. The table has the worst volume first.

`train` trains on all volumes, with the detector and the threshold of the best mean F1 over all
volumes left out, and writes `models/<stain>.safetensors`.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import logging
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import left_out
import real_data
import rivals

from voxmill.cells.find_cells import METHODS
from voxmill.config.cells import CellSettings
from voxmill.config.training import TrainingSettings
from voxmill.geometry import Box, VoxelSize
from voxmill.networks import models
from voxmill.runtime.files import sha256, write_json, writing
from voxmill.training.loop import TrainingResult, train
from voxmill.training.sources import Source
from voxmill.training.train_network import make_card
from voxmill.training.validation import predict_box
from voxmill.volumes.blocks import ArrayVolume

METHODS_COMPARED = ("network", "dog", "boosting", "cellfinder")
THRESHOLDS = np.round(np.concatenate([[0.02, 0.05], np.arange(0.1, 0.96, 0.05), [0.97]]), 2)


def read_volumes(options) -> tuple[dict[str, left_out.Volume], dict[str, Source]]:
    """Ground truth and sources of a stain's volumes."""
    volumes, sources = {}, {}
    for name in real_data.VOLUMES[options.stain]:
        sources[name] = real_data.read_source(name, options.data)
        volumes[name] = real_data.truth_of(sources[name])
    return volumes, sources


def train_on(
    sources: list[Source], settings: TrainingSettings, options, checkpoint: Path
) -> TrainingResult:
    """Train on whole volumes, for a fixed number of steps."""
    # The training needs validation data: a box of training cells, scored for the log alone.
    box = Box.from_shape(real_data.WATCHED_VOX)
    watched = dataclasses.replace(sources[0], name="watched", region=box, validation=box)
    regions = [region for source in sources for region in real_data.regions_of(source)]
    return train([*regions, watched], settings, "cpu", options.threads, checkpoint)


def network_runs(
    volumes: dict[str, left_out.Volume],
    sources: dict[str, Source],
    settings: TrainingSettings,
    options,
) -> left_out.Runs:
    """Runs of networks that were trained without the volume that they predict."""
    runs: left_out.Runs = {}
    candidates = real_data.DETECTORS[options.stain]
    for name, volume in volumes.items():
        probability = left_out_probability(name, sources, settings, options)
        finder = Finder(probability, volume, sources[name].voxel_size_um)
        runs[name] = {}
        for values in itertools.product(*candidates.values()):
            chosen = dict(zip(candidates, values, strict=True))
            find = functools.partial(finder.find, {**settings.detector, **chosen})
            runs[name][json.dumps(chosen)] = left_out.Run(volume, THRESHOLDS, find)
        logging.info("%s: best F1 %.3f", name, max(r.f1.max() for r in runs[name].values()))
    return runs


class Finder:
    """Cells of a probability map at any threshold, for many settings of one detector.

    Components are found once for each threshold; what the settings drop of them is dropped as in
    `voxmill.cells.find_cells.cells_of_volume`.
    """

    def __init__(self, probability: np.ndarray, volume: left_out.Volume, voxel_size_um):
        self._probability, self._volume = ArrayVolume(probability), volume
        self._size = VoxelSize.of(voxel_size_um)
        self._found: dict[float, tuple] = {}

    def find(self, detector: dict, threshold: float) -> np.ndarray:
        """Points in the regions, (N, 3) voxels."""
        settings = CellSettings.from_dict({**detector, "threshold": threshold})
        if threshold not in self._found:
            method = METHODS[settings.method]
            self._found[threshold] = method(self._probability, settings, self._size, 1)
        places, scores, counts, cut = self._found[threshold]
        least = settings.min_volume_um3 * np.where(cut, settings.border_share, 1.0)
        keep = (counts * self._size.volume_um3 >= least * (1 - 1e-9)) & (
            scores >= settings.min_score
        )
        return places[keep & self._volume.kept(places)]


def left_out_probability(
    name: str, sources: dict[str, Source], settings: TrainingSettings, options
) -> np.ndarray:
    """The prediction of a volume by a network trained on the others, kept in the work folder."""
    path = Path(options.work) / f"{name}.npy"
    if not path.exists():
        others = [source for other, source in sources.items() if other != name]
        trained = train_on(others, settings, options, path.with_suffix(".checkpoint"))
        whole = Box.from_shape(sources[name].volume.shape)
        maps = predict_box(
            trained.network, sources[name], whole, settings.normalisation, "cpu", options.threads
        )
        with writing(path) as scratch, open(scratch, "wb") as file:
            np.save(file, maps[0].astype(np.float16))
    return np.load(path).astype(np.float32)


def run_lovo(options) -> None:
    """Compare all methods on each volume left out."""
    volumes, sources = read_volumes(options)
    settings = settings_of(options)
    networks = network_runs(volumes, sources, settings, options)
    grey, scale = settings.normalisation, real_data.CANDIDATE_SCALE[options.stain]
    work, diameter_um = Path(options.work), settings.cell_diameter_um
    makers = {
        "network": lambda: networks,
        "dog": lambda: rivals.dog(volumes, sources, grey),
        "boosting": lambda: rivals.boosting(volumes, sources, grey, scale),
        "cellfinder": lambda: rivals.cellfinder(volumes, sources, diameter_um, work),
    }
    methods = {key: makers[key]() for key in options.methods}
    rows = {key: left_out.leave_out(runs) for key, runs in methods.items() if runs}
    print(left_out.table(rows, volumes))
    setting, threshold, mean = left_out.choose(networks, None)
    shared = {
        "detector": json.loads(setting),
        "threshold": round(threshold, 4),
        "f1": round(mean, 4),
        "volumes": {name: round(of[setting].f1_at(threshold), 4) for name, of in networks.items()},
    }
    curves = {
        name: dict(zip(THRESHOLDS.tolist(), of[setting].f1.round(4).tolist(), strict=True))
        for name, of in networks.items()
    }
    report = {"stain": options.stain, "methods": rows, "shared": shared, "f1_by_threshold": curves}
    write_json(Path(options.work) / f"{options.stain}.json", report)


def settings_of(options) -> TrainingSettings:
    """Settings of a stain's network, with the changes of the command line."""
    return dataclasses.replace(real_data.SETTINGS[options.stain], **json.loads(options.settings))


def run_training(options) -> None:
    """Train on all volumes of a stain; `lovo` must have been run with the same settings."""
    stain = options.stain
    _, sources = read_volumes(options)
    report = json.loads((Path(options.work) / f"{stain}.json").read_text())
    chosen, settings = report["shared"], settings_of(options)
    settings = dataclasses.replace(
        settings, detector={**settings.detector, **chosen.pop("detector")}
    )
    output = Path(options.models) / f"{stain}.safetensors"
    checkpoint = Path(options.work) / f"{stain}.checkpoint"
    trained = train_on(list(sources.values()), settings, options, checkpoint)
    training = {
        "command": f"python benchmarks/accuracy.py train --stain {stain}"
        + (f" --settings '{options.settings}'" if options.settings != "{}" else ""),
        "source": real_data.SOURCE,
        "licence": real_data.LICENCE,
        "volumes": {n: real_data.digests(n, options.data) for n in sources},
        "validation": "by volume: networks trained like this one, each without the volume that it "
        "is scored on, give the detector settings, the threshold and the validation metrics",
    }
    trained = dataclasses.replace(trained, validation=chosen)
    regions = [region for source in sources.values() for region in real_data.regions_of(source)]
    models.save(output, trained.network, make_card(stain, settings, trained, regions, training))
    logging.info("%s: %s", output, sha256(output))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    for name, run in (("lovo", run_lovo), ("train", run_training)):
        command = commands.add_parser(name)
        command.add_argument("--stain", choices=sorted(real_data.VOLUMES), required=True)
        command.add_argument("--settings", default="{}", help="JSON: settings to change")
        command.add_argument("--work", required=True, help="folder for predictions and reports")
        command.add_argument("--data", type=Path, default=real_data.DATA)
        command.add_argument("--models", default="models")
        command.add_argument("--threads", type=int, default=1)
        command.set_defaults(run=run)
        if run is run_lovo:
            command.add_argument("--methods", nargs="+", default=METHODS_COMPARED)
    options = parser.parse_args()
    Path(options.work).mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("voxmill.engine").setLevel(logging.WARNING)
    options.run(options)


if __name__ == "__main__":
    main()
