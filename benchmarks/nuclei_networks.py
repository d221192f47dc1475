"""The networks of the nuclei benchmark: trained on phantoms, and on parts of a real volume."""

import dataclasses
from pathlib import Path

import nuclei_data
import numpy as np

from voxmill.config.training import Augmentation, TrainingSettings
from voxmill.geometry import Box
from voxmill.networks import build, check_settings, models
from voxmill.networks.heads import HEADS
from voxmill.training.fine_tuning import initial_weights
from voxmill.training.loop import train
from voxmill.training.sources import Source
from voxmill.training.train_network import make_card
from voxmill.training.validation import predict_box
from voxmill.volumes.appearance import joined

TRAINED_ON, VALIDATED_ON = range(1, 9), 101
TUNED_ON, JUDGED_ON = (201, 202), (301, 302)
"""Seeds of phantoms; none of them looks like another."""
# Real volumes are few: each counts as so many phantoms.
REAL_COPIES = 6
TOUCHING = "centre"
"""By `python benchmarks/nuclei.py ablation`."""
STEPS, MORE_STEPS = 1200, 400
"""Steps on phantoms, and with real volumes from there on."""


class EveryTarget(TrainingSettings):
    """Settings of a network that learns all maps that part objects, to compare them."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """The mask, and a map for each of `HEADS`."""
        return ("mask", *HEADS)


def settings_of(
    steps: int, kind: type[TrainingSettings] = TrainingSettings, rate: float = 1e-2
) -> TrainingSettings:
    """Settings of a network that learns masks and what parts objects."""
    return kind(
        cell_diameter_um=nuclei_data.DIAMETER_UM,
        target="mask",
        touching=TOUCHING,
        positive_weight=1.0,
        foreground_weight=1.0,
        network={"kind": "msdnet", "depth": 14, "width": 4, "dilations": (1, 2, 4, 8)},
        patch_vox=(32, 32, 32),
        balance=0.0,
        learning_rate=rate,
        steps=steps,
        validate_every=steps,
        checkpoint_every=100,
        average=0.98,
        augmentation=Augmentation(rotate="yx", scale=0.4, shift=0.15, noise=0.2, gradient=0.3),
        device="cpu",
    )


def halves(name: str, folder: Path) -> list[tuple[str, Box, Box]]:
    """Parts of a volume to leave out: name, box to train on, box to judge; voxels of the file."""
    _, labels, _ = nuclei_data.read_volume(name, folder)
    z, y, x = labels.shape
    upper, lower = Box((0, 0, 0), (z // 2, y, x)), Box((z // 2, 0, 0), (z, y, x))
    return [(f"{name} z < {z // 2}", lower, upper), (f"{name} z >= {z // 2}", upper, lower)]


def real_sources(name: str, folder: Path, box: Box | None = None) -> list[Source]:
    """A real volume, or planes of it, as several sources, so that it counts more."""
    volume, labels, size = nuclei_data.read_volume(name, folder)
    sources = []
    for k in range(REAL_COPIES):
        # Grey values are those of the whole volume, as in a prediction; labels are not.
        source = nuclei_data.make_source(f"{name}-{k}", volume, labels, size)
        region = source.region
        if box is not None:
            region = Box((box.start[0], *region.start[1:]), (box.stop[0], *region.stop[1:]))
        inside = region.contains(np.rint(source.points))
        digests = str(nuclei_data.digests(name, folder))
        sources.append(
            dataclasses.replace(
                source, region=region, points=source.points[inside], contents=digests
            )
        )
    return sources


def network(
    path: Path,
    real: list[Source],
    settings: TrainingSettings,
    threads: int,
    note: str,
    start: Path | None = None,
):
    """Read a network, or train it on phantoms and real sources and write it.

    Parameters
    ----------
    path : path
    real : list of Source
    settings : TrainingSettings
    threads : int
    note : str
        For the card.
    start : path, optional
        Weights to start from.

    Returns
    -------
    card, network
    """
    if not path.exists():
        sources = [nuclei_data.phantom_source(seed) for seed in TRAINED_ON]
        held = nuclei_data.phantom_source(VALIDATED_ON, held=True)
        if real:
            size = real[0].voxel_size_um
            sources = [dataclasses.replace(s, voxel_size_um=size) for s in sources]
            held = dataclasses.replace(held, voxel_size_um=size)
        sources = [*sources, *real, held]
        path.parent.mkdir(parents=True, exist_ok=True)
        initial = initial_weights(start, settings) if start else None
        checkpoint = path.with_suffix(".checkpoint")
        trained = train(sources, settings, "cpu", threads, checkpoint, initial)
        about = {"note": note, "phantoms": list(TRAINED_ON)}
        card = make_card(path.stem, settings, trained, sources, about)
        models.save(path, trained.network, card)
    return models.load(path)


def maps_of(path: Path, source: Source, shape: tuple[int, ...], threads: int) -> dict:
    """Maps of a network on a whole volume, in the voxels of its file, by the names of outputs."""
    card, trained = models.load(path)
    maps = predict_box(trained, source, source.region, card.normalisation, "cpu", threads)
    return dict(zip(card.outputs, nuclei_data.fine(maps, shape), strict=True))


def mean_of(paths: list[Path]):
    """The mean of the weights of networks that were trained from one start on.

    Such networks are as good on average as each of them (Wortsman et al., "Model soups", ICML
    2022). Of their maps, the mask and `TOUCHING` are kept.

    Returns
    -------
    card, network
    """
    cards, trained = zip(*[models.load(path) for path in paths], strict=True)
    states = [network.state_dict() for network in trained]
    outputs = ("mask", TOUCHING)
    rows = [cards[0].outputs.index(name) for name in outputs]
    state = {key: sum(one[key] for one in states) / len(states) for key in states[0]}
    state |= {key: state[key][rows].clone() for key in ("final_weight", "final_bias")}
    shape = {**cards[0].settings, "outputs": len(outputs)}
    network = build("msdnet", check_settings("msdnet", shape))
    network.load_state_dict(state)
    seen = joined(card.seen for card in cards)
    return dataclasses.replace(cards[0], settings=shape, outputs=outputs, seen=seen), network


def ship(path: Path, card: models.ModelCard, network, detector: dict, folder: Path) -> None:
    """Write the model with the detector that was chosen on what no network had seen."""
    rest = {key: value for key, value in detector.items() if key != "threshold"}
    training = {
        "command": "python benchmarks/nuclei.py train",
        "source": nuclei_data.SOURCE,
        "licence": nuclei_data.LICENCE,
        "volumes": {name: nuclei_data.digests(name, folder) for name in nuclei_data.USABLE},
        **card.training,
        "note": "phantoms, then phantoms and each half of the volume; the mean of both networks",
    }
    shipped = dataclasses.replace(
        card,
        name=path.stem,
        threshold=detector["threshold"],
        detector={"method": "maxima", **rest},
        training=training,
        metrics={},
    )
    models.save(path, network, shipped)
