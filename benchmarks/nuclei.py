"""Touching nuclei: what parts them, and our objects beside other methods' from the same maps.

    python benchmarks/nuclei.py look
    python benchmarks/nuclei.py left-out --work results/nuclei
    python benchmarks/nuclei.py ablation --work results/nuclei
    python benchmarks/nuclei.py train --work results/nuclei
    python benchmarks/nuclei.py masks

`look` says which of the real volumes can be used. `left-out`: networks that have not seen what they
are judged on: one trained on phantoms alone, judged on the real volume and on other phantoms, and
one for each half of the real volume, trained on phantoms and the other half. Every method gets the
same maps. Its settings are those with the best mean panoptic quality on phantoms that no network
was trained on and, for a half, on the other half as predicted by the network that had not seen it.
`ablation` compares the maps that part objects, of networks that learn all of them. `train` writes
the shipped model, the mean of the networks of both halves. `masks`: the shipped light-sheet models
on the light-sheet masks, object by object. Tables have the worst part first.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import nuclei_data
import nuclei_looks
import nuclei_networks
from nuclei_methods import METHODS, Maps, Method

from voxmill.evaluation.instances import count_overlaps, scores_at, splits_and_merges
from voxmill.geometry import Box, VoxelSize
from voxmill.networks.heads import HEADS
from voxmill.volumes.blocks import ArrayVolume


def quality(truth: np.ndarray, found: np.ndarray) -> dict:
    """AP and panoptic quality at 0.5, splits, merges and counts."""
    overlaps = count_overlaps(ArrayVolume(truth), ArrayVolume(found.astype(np.uint32)), 512)
    scores = scores_at(overlaps, 0.5)
    return {
        "true": len(overlaps.truth.labels),
        "found": len(overlaps.found.labels),
        "AP": scores["average_precision"] or 0.0,
        "PQ": scores["panoptic_quality"] or 0.0,
        **splits_and_merges(overlaps),
    }


class Part:
    """What a method is judged on: maps of a network that has not seen it, and the truth.

    Parameters
    ----------
    name : str
    maps : dict of str to (z, y, x) array
        Of the whole volume.
    labels : (z, y, x) int array
    size : VoxelSize
    box : Box
        Where the objects are compared.
    """

    def __init__(self, name: str, maps: Maps, labels: np.ndarray, size, box: Box | None = None):
        self.name, self.maps, self.size = name, maps, VoxelSize.of(size)
        self.labels, self.box = labels, box or Box.from_shape(labels.shape)
        self._known: dict[tuple, dict] = {}

    def only(self, name: str) -> "Part":
        """The same with one of the maps that part objects."""
        maps = {key: self.maps[key] for key in ("mask", name)}
        return Part(self.name, maps, self.labels, self.size, self.box)

    def quality_of(self, method: Method, settings: dict) -> dict:
        """The same as `judge`, computed once."""
        key = (id(method), str(settings))
        if key not in self._known:
            self._known[key] = self.judge(method, settings)
        return self._known[key]

    def judge(self, method: Method, settings: dict) -> dict:
        """Quality of a method's objects; they are made of the whole volume's maps."""
        found = method.run(self.maps, self.size, **settings)
        return quality(self.labels[self.box.slices], found[self.box.slices])


def phantom_part(path: Path, seed: int, threads: int) -> Part:
    volume, labels = nuclei_data.draw_nuclei(seed)
    source = nuclei_data.make_source(f"phantom {seed}", volume, labels, nuclei_data.SIZE_UM)
    maps = nuclei_networks.maps_of(path, source, labels.shape, threads)
    return Part(source.name, maps, labels, nuclei_data.SIZE_UM)


def parts_of(options) -> tuple[list[Part], list[Part]]:
    """Phantoms to tune on, and parts to judge on; the last two are halves of the real volume."""
    networks = nuclei_networks
    settings = networks.settings_of(networks.STEPS, networks.EveryTarget)
    more = networks.settings_of(networks.MORE_STEPS, networks.EveryTarget, 6e-3)
    alone = options.work / "phantoms-all.safetensors"
    networks.network(alone, [], settings, options.threads, "phantoms alone")
    tuned = [phantom_part(alone, seed, options.threads) for seed in networks.TUNED_ON]
    judged = [phantom_part(alone, seed, options.threads) for seed in networks.JUDGED_ON]
    (name,) = nuclei_data.USABLE
    volume, labels, size = nuclei_data.read_volume(name, options.data)
    source = nuclei_data.make_source(name, volume, labels, size)
    maps = networks.maps_of(alone, source, labels.shape, options.threads)
    judged.append(Part(f"{name}, from phantoms", maps, labels, size))
    for k, (part, seen, unseen) in enumerate(networks.halves(name, options.data)):
        path = options.work / f"half-{k}-all.safetensors"
        real = networks.real_sources(name, options.data, seen)
        networks.network(path, real, more, options.threads, f"all but {part}", alone)
        maps = networks.maps_of(path, source, labels.shape, options.threads)
        judged.append(Part(part, maps, labels, size, unseen))
    return tuned, judged


def tune(method: Method, parts: list[Part], title: str) -> dict:
    """Settings of a method with the best mean panoptic quality."""
    choices = method.choices()
    if len(choices) == 1:
        return choices[0]
    means = [
        np.mean([part.quality_of(method, choice)["PQ"] for part in parts]) for choice in choices
    ]
    best = choices[int(np.argmax(means))]
    print(f"{title}: {best}, PQ {max(means):.3f} where it was chosen", file=sys.stderr, flush=True)
    return best


def print_table(rows: dict[str, list[dict]], names: list[str], title: str) -> None:
    """Markdown; the part on which the first method is worst first."""
    first = next(iter(rows.values()))
    keys = ("true", "found", "AP", "PQ", "split_objects", "merged_objects")
    print(f"| part | {title} | true | found | AP 0.5 | PQ | split | merged |\n" + "|---" * 8 + "|")
    for k in np.argsort([row["PQ"] for row in first]):
        for method, of_method in rows.items():
            texts = [
                f"{of_method[k][key]:.3f}" if key in ("AP", "PQ") else str(of_method[k][key])
                for key in keys
            ]
            print(f"| {names[k]} | {method} | " + " | ".join(texts) + " |")
    for title, chosen in (("mean of the halves", slice(-2, None)), ("mean", slice(None))):
        for method, of_method in rows.items():
            means = [np.mean([row[key] for row in of_method[chosen]]) for key in ("AP", "PQ")]
            print(f"| {title} | {method} | | | {means[0]:.3f} | {means[1]:.3f} | | |", flush=True)


def compared(methods: dict[str, tuple[Method, str]], options) -> None:
    """Tune methods, each on the map it uses, judge them, and print the table."""
    tuned, judged = parts_of(options)
    rows = {}
    for title, (method, name) in methods.items():
        phantoms = [part.only(name) for part in tuned]
        parts = [part.only(name) for part in judged]
        one, other = parts[-2:]
        # A half is tuned for on phantoms and on the other half, whose network has not seen it.
        for_halves = [tune(method, [*phantoms, *p], title) for p in ((other, other), (one, one))]
        settings = [tune(method, phantoms, title)] * (len(parts) - 2) + for_halves
        rows[title] = [p.quality_of(method, s) for p, s in zip(parts, settings, strict=True)]
    print_table(rows, [part.name for part in judged], "method")


def left_out(options) -> None:
    compared({name: (method, options.map) for name, method in METHODS.items()}, options)


def ablation(options) -> None:
    methods = {f"labels, {name}": (METHODS["voxmill"], name) for name in HEADS}
    methods |= {
        f"watershed, {name}": (METHODS["watershed of the learnt map"], name) for name in HEADS
    }
    alone = METHODS["watershed of the distance"]
    compared(methods | {"watershed, the mask alone": (alone, options.map)}, options)


def train(options) -> None:
    """The shipped model: the mean of the networks of both halves, which together saw all."""
    networks = nuclei_networks
    tuned, judged = parts_of(options)
    parts = [part.only(networks.TOUCHING) for part in [*tuned, *judged[-2:]]]
    detector = tune(METHODS["voxmill"], parts, "detector")
    halves = [options.work / f"half-{k}-all.safetensors" for k in (0, 1)]
    card, network = networks.mean_of(halves)
    path = Path("models") / "nuclei.safetensors"
    networks.ship(path, card, network, detector, options.data)
    phantoms = [phantom_part(path, seed, options.threads) for seed in networks.JUDGED_ON]
    scores = [part.judge(METHODS["voxmill"], detector) for part in phantoms]
    print({part.name: score for part, score in zip(phantoms, scores, strict=True)}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    works = {
        "look": nuclei_looks.look, "left-out": left_out, "ablation": ablation, "train": train,
        "masks": nuclei_looks.masks,
    }  # fmt: skip
    for name, run in works.items():
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--data", type=Path, default=nuclei_data.DATA)
        command.add_argument("--work", type=Path, default=Path("results/nuclei"))
        command.add_argument("--map", choices=sorted(HEADS), default=nuclei_networks.TOUCHING)
        command.add_argument("--volumes", nargs="+", help="masks: only these")
        command.add_argument("--foreground", choices=("probability", "image"), help="masks: by")
        command.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
