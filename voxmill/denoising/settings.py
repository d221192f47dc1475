"""Settings of a denoising run, checked without importing torch."""

import dataclasses
from dataclasses import dataclass, field

from voxmill.networks.skip3d_settings import Skip3DSettings
from voxmill.runtime.errors import VoxmillError

STOP_RULES = ("variance", "held_out", "fixed")
PRECISIONS = ("float32", "float16", "bfloat16", "auto")
NOISES = ("rician", "rician_bias", "gaussian")
INPUTS = ("noise", "scan", "recorrupted")
SCHEDULES = ("constant", "cosine")
# Held out of a small volume, where `stop.fraction` is `auto`; fewer where a fifth is fewer.
HELD_OUT_VOXELS = 20_000


@dataclass(frozen=True)
class StopSettings:
    """When a fit ends and which of its iterations is the result.

    Parameters
    ----------
    rule : str
        `variance`: the windowed moving variance of the outputs has its minimum (Wang et al.,
        "Early stopping for Deep Image Prior", 2021); `held_out`: the error on voxels that the
        loss never sees has its minimum (`voxmill.denoising.stopping`); `fixed`: after `iterations`,
        the last one.
    patience : int
        Iterations without a new minimum after which the fit ends.
    window : int
        Iterations over which the variance is taken; with recorrupted input, over about which a
        part of the error on held-out voxels is averaged (`voxmill.denoising.stopping`).
    fraction : float or "auto"
        Share of the voxels that are held out, for `held_out`; `auto`: see
        `DenoiseSettings.held_out_share`.
    warmup : int
        Iterations before the rule begins to look.
    """

    rule: str = "held_out"
    patience: int = 1000
    window: int = 100
    fraction: float | str = "auto"
    warmup: int = 100

    def __post_init__(self):
        choice("stop.rule", self.rule, STOP_RULES)
        integer("stop.patience", self.patience, 1)
        integer("stop.window", self.window, 2)
        integer("stop.warmup", self.warmup, 0)
        if self.fraction != "auto":
            number("stop.fraction", self.fraction, 0, 0.5, "> 0 and <= 0.5, or auto", above=True)


@dataclass(frozen=True)
class DenoiseSettings:
    """How one scan is denoised.

    Parameters
    ----------
    network : Skip3DSettings
        Shape of the network. Its `inputs` counts the channel of the scan, all others are random;
        the classical prior, `input: noise`, has 32 random channels in the paper.
    stop : StopSettings
    iterations : int
        The fixed count, and the most that the other stopping rules allow.
    learning_rate : float
        Of Adam.
    schedule : str
        `constant`, or `cosine` from `learning_rate` down to a twentieth of it.
    noise : str
        `rician`: fit in the domain of a variance-stabilising transform; `rician_bias`: fit the
        magnitudes and take the Rician bias out of the result; `gaussian`: neither.
    sigma : float or None
        Noise level in the scan's units; None: estimated from the scan.
    input : str
        `noise`: fixed random channels alone; `scan`: its first channel is the noisy scan with the
        voxels hidden that the loss of this iteration looks at; `recorrupted`: its first channel is
        the scan with more noise, and the loss compares with the scan with the opposite noise.
    mask_fraction : float
        Share of the voxels that are hidden and looked at in each iteration; 0: the loss looks at
        all voxels (only with `input: noise`).
    recorruption : float
        Size of the noise that `recorrupted` adds, relative to the scan's own.
    input_noise : float
        Standard deviation of the noise that is added to the random channels in each iteration
        (they themselves are uniform from 0 to 0.1).
    fits : int
        Fits from different random numbers, one after the other, whose results are averaged.
    average : float
        Decay of the exponential moving average of the outputs, which is the result.
    detail_block_vox : int
        Side of the blocks of a collaborative Wiener filter that takes detail back from the noisy
        scan, guided by the average of the outputs; 0: none.
    mirror : bool
        Show the network another one of the eight mirror images in each iteration; the average
        of the outputs thereby runs over all of them.
    total_variation : float
        Weight of the mean absolute difference of neighbouring voxels in the loss.
    precision : str
        Of the forward and backward passes; weights, norms, sums and loss are float32 always.
        `auto`: the fast one of the devices (`voxmill.denoising.devices.resolve_precision`).
    checkpointing : bool
        Recompute activations in the backward pass: less memory, more time.
    channels_last : bool
        Keep maps with the channel as the fastest axis.
    cut : str
        With two devices, the first unit of the network on the second; `auto` balances their
        memory, `decoder` is the first unit of the decoder.
    seed : int
    checkpoint_every, preview_every, metrics_every : int
        Iterations between checkpoints, preview pictures (0: none), and metrics against a
        reference where one is given.
    """

    network: Skip3DSettings = field(default_factory=Skip3DSettings)
    stop: StopSettings = field(default_factory=StopSettings)
    iterations: int = 3000
    fits: int = 1
    learning_rate: float = 0.01
    schedule: str = "constant"
    noise: str = "rician"
    sigma: float | None = None
    input: str = "recorrupted"
    mask_fraction: float = 0.0
    recorruption: float = 0.5
    input_noise: float = 0.0
    average: float = 0.99
    detail_block_vox: int = 4
    mirror: bool = False
    total_variation: float = 0.0
    precision: str = "float32"
    checkpointing: bool = False
    channels_last: bool = False
    cut: str = "auto"
    seed: int = 0
    checkpoint_every: int = 200
    preview_every: int = 0
    metrics_every: int = 25

    def __post_init__(self):
        for key in ("iterations", "fits", "checkpoint_every", "metrics_every"):
            integer(key, getattr(self, key), 1)
        for key in ("preview_every", "seed"):
            integer(key, getattr(self, key), 0)
        for key in ("checkpointing", "channels_last", "mirror"):
            choice(key, getattr(self, key), (True, False))
        integer("detail_block_vox", self.detail_block_vox, 0)
        if self.detail_block_vox == 1:
            raise VoxmillError(
                "denoise setting detail_block_vox: expected 0 or at least 2, found 1"
            )
        choice("precision", self.precision, PRECISIONS)
        choice("noise", self.noise, NOISES)
        choice("input", self.input, INPUTS)
        choice("schedule", self.schedule, SCHEDULES)
        number("learning_rate", self.learning_rate, 0, 10, "> 0", above=True)
        number("mask_fraction", self.mask_fraction, 0, 0.9, "from 0 to 0.9")
        number("recorruption", self.recorruption, 0, 10, "> 0", above=True)
        number("input_noise", self.input_noise, 0, 10, "from 0 to 10")
        number("average", self.average, 0, 0.99999, "from 0 to below 1")
        number("total_variation", self.total_variation, 0, 1e3, "from 0 to 1000")
        if self.sigma is not None:
            number("sigma", self.sigma, 0, float("inf"), "> 0, or none", above=True)
        if self.input == "scan" and self.mask_fraction == 0:
            raise VoxmillError(
                "denoise setting mask_fraction: expected more than 0 with `input: scan`, found 0: "
                "a network that sees the voxel that it is asked for learns to copy its noise"
            )
        if self.network.outputs != 1:
            raise VoxmillError(
                f"denoise setting network.outputs: expected 1, found {self.network.outputs}"
            )

    @property
    def needs_level(self) -> bool:
        """Whether anything asks for the noise level of the scan."""
        return self.noise != "gaussian" or self.input == "recorrupted" or self.detail_block_vox > 0

    def held_out_share(self, voxels: int) -> float:
        """Share of a volume's voxels that `held_out` holds out.

        With `auto` 2 %. In small volumes these are too few to tell iterations apart (what the
        noise of these voxels gives to a difference falls with the root of their number): it is up
        to 20 % there, but only where the network sees them and need not guess them.
        """
        if self.stop.fraction != "auto":
            return self.stop.fraction
        wanted = HELD_OUT_VOXELS / voxels if self.input == "recorrupted" else 0.0
        return min(0.2, max(0.02, wanted))


def from_config(content: dict) -> DenoiseSettings:
    """Settings from a plain nested dict, as a rule hands it over.

    Raises
    ------
    VoxmillError
        If a key is unknown or a value is out of range.
    """
    content = dict(content)
    network = _build(Skip3DSettings, "network.", content.pop("network", {}))
    stop = _build(StopSettings, "stop.", content.pop("stop", {}))
    return _build(DenoiseSettings, "", {**content, "network": network, "stop": stop})


def as_plain(settings: DenoiseSettings) -> dict:
    """Settings as a nested dict of JSON's types: the inverse of `from_config`."""
    plain = dataclasses.asdict(settings)
    if callable(plain["network"]["activation"]):
        plain["network"]["activation"] = repr(settings.network.activation)
    return {key: _plain(value) for key, value in plain.items()}


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _build(kind, prefix: str, content: dict):
    if not isinstance(content, dict):
        raise VoxmillError(f"denoise setting {prefix[:-1]}: expected keys, found {content!r}")
    known = {f.name for f in dataclasses.fields(kind)}
    for key in content:
        if key not in known:
            raise VoxmillError(
                f"denoise setting {prefix}{key}: unknown; expected some of {sorted(known)}"
            )
    return kind(**content)


def integer(key: str, value: object, least: int) -> None:
    """Refuse anything but an integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise VoxmillError(
            f"denoise setting {key}: expected an integer >= {least}, found {value!r}"
        )


def number(key: str, value: object, least: float, most: float, wanted: str, above=False) -> None:
    """Refuse anything but a number from `least` (`above`: beyond it) to `most`."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
    if not good or (above and value == least):
        raise VoxmillError(f"denoise setting {key}: expected a number {wanted}, found {value!r}")


def choice(key: str, value: object, choices: tuple) -> None:
    """Refuse anything that is none of `choices`."""
    if value not in choices:
        raise VoxmillError(f"denoise setting {key}: expected one of {choices}, found {value!r}")
