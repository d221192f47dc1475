"""How scans are denoised."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from voxmill.config.base import (
    Count,
    Flag,
    Number,
    OrEmpty,
    Positive,
    Section,
    SettingError,
    Text,
    Whole,
    section,
    setting,
)
from voxmill.config.skip3d import Skip3DSettings

FitPrecision = Literal["float32", "float16", "bfloat16", "auto"]
PRECISIONS = get_args(FitPrecision)
# Held out of a small volume, where `stop.fraction` is `auto`; fewer where a fifth is fewer.
HELD_OUT_VOXELS = 20_000


@section("stop")
class StopSettings(Section):
    """When a fit ends and which of its iterations is the result."""

    rule: Literal["variance", "held_out", "fixed"] = "held_out"
    """variance: the windowed moving variance of the outputs has its minimum (Wang et al., "Early
    stopping for Deep Image Prior", 2021); held_out: the error on voxels that the loss never sees
    has its minimum; fixed: after `iterations`, the last one."""
    patience: Count = 1000
    """Iterations without a new minimum after which the fit ends."""
    window: Whole = setting(default=100, ge=2)
    """Iterations over which the variance is taken; with recorrupted input, over about which a part
    of the error on held-out voxels is averaged."""
    fraction: Annotated[Number, Field(gt=0, le=0.5)] | Literal["auto"] = "auto"
    """For held_out: share of the voxels that are held out. auto: 2 %, and with recorrupted input
    20,000 voxels, but at most 20 %."""
    warmup: Whole = setting(default=100, ge=0)
    """Iterations before the rule begins to look."""


@section("denoising")
class DenoiseSettings(Section):
    """How one scan is denoised."""

    network: OrEmpty[Skip3DSettings] = setting(factory=Skip3DSettings)
    """Shape of the encoder-decoder."""
    stop: OrEmpty[StopSettings] = setting(factory=StopSettings)
    """When the fit ends."""
    iterations: Count = 3000
    """The fixed count, and the most that the stopping rules allow."""
    fits: Count = 1
    """Fits from different random numbers, whose results are averaged."""
    fits_at_once: Count = 1
    """How many of the fits run at once, each on devices of its own: `devices` then names one or two
    for each of them."""
    learning_rate: Number = setting(default=0.01, gt=0, le=10)
    """Of Adam."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Of the learning rate; cosine falls to a twentieth of it."""
    noise: Literal["rician", "rician_bias", "gaussian"] = "rician"
    """rician: fit in the domain of a variance-stabilising transform; rician_bias: fit the
    magnitudes and take the Rician bias out of the result; gaussian: neither."""
    sigma: Positive | None = None
    """Noise level in the scan's units; estimated from the scan when left out."""
    fill_nan: Number | None = None
    """What NaN and infinite voxels of a scan become, in its units; 0 for a background of NaN. They
    are refused when left out."""
    input: Literal["noise", "scan", "recorrupted"] = "recorrupted"
    """noise: fixed random channels alone (the classical prior); scan: the first channel is the
    noisy scan with the voxels hidden that the loss of this iteration looks at; recorrupted: the
    first channel is the scan with more noise, and the loss compares with the scan with the
    opposite noise."""
    mask_fraction: Number = setting(default=0.0, ge=0, le=0.9)
    """Share of the voxels that are hidden from the input and looked at by the loss of an
    iteration; 0: the loss looks at all voxels."""
    recorruption: Number = setting(default=0.5, gt=0, le=10)
    """Size of the noise that recorrupted adds, relative to the scan's own."""
    input_noise: Number = setting(default=0.0, ge=0, le=10)
    """Standard deviation of the noise that is added to the random channels in each iteration (they
    themselves are uniform from 0 to 0.1)."""
    average: Number = setting(default=0.99, ge=0, lt=1)
    """Decay of the exponential moving average of the outputs, which is the result."""
    detail_block_vox: Whole = setting(default=4, ge=0)
    """Side of the blocks of a collaborative Wiener filter that takes detail back from the noisy
    scan, guided by the average of the outputs; 0 for none, else at least 2."""
    mirror: Flag = False
    """Show the network another one of the eight mirror images of the scan in each iteration; the
    average of the outputs thereby runs over all of them."""
    total_variation: Number = setting(default=0.0, ge=0, le=1000)
    """Weight of the mean absolute difference of neighbouring voxels in the loss."""
    precision: FitPrecision = "float32"
    """Of the forward and backward passes; weights, norms, sums and loss are float32 always. auto:
    float16 on GPUs, bfloat16 on CPUs with instructions for it, else float32."""
    checkpointing: Flag = False
    """Recompute activations in the backward pass: less memory, more time."""
    channels_last: Flag = False
    """Keep feature maps with the channel as the fastest axis."""
    deterministic: Flag = True
    """On GPUs, kernels of cuDNN that repeat bit for bit; without, cuDNN takes the fastest of those
    that it tries, and two runs differ in rounding."""
    cut: Text = "auto"
    """With two devices, the first unit of the network on the second; auto balances their memory,
    decoder puts the whole decoder there."""
    seed: Whole = setting(default=0, ge=0)
    """Of everything random in the fit."""
    checkpoint_every: Count = 200
    """Iterations between checkpoints, from which a killed job goes on."""
    preview_every: Whole = setting(default=0, ge=0)
    """Iterations between preview pictures; 0 for none."""
    metrics_every: Count = 25
    """Iterations between PSNR and SSIM against a reference, where one is given."""

    def __post_init__(self) -> None:
        if self.detail_block_vox == 1:
            raise SettingError("detail_block_vox", "expected 0 or at least 2, found 1")
        if self.input == "scan" and self.mask_fraction == 0:
            raise SettingError(
                "mask_fraction",
                "expected more than 0 with `input: scan`, found 0: a network that sees the voxel "
                "that it is asked for learns to copy its noise",
            )
        if self.network.outputs != 1:
            raise SettingError("network.outputs", f"expected 1, found {self.network.outputs}")

        if self.fits_at_once > self.fits:
            raise SettingError(
                "fits_at_once",
                f"expected at most `fits`, which is {self.fits}, found {self.fits_at_once}",
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


# Settings that change how a fit is computed, and its result by rounding alone.
HOW = ("fits_at_once", "cut", "checkpointing", "channels_last", "deterministic")


def plain_settings(settings: DenoiseSettings) -> dict[str, Any]:
    """Settings as a nested dict of JSON's types; an activation that is code becomes its name."""
    plain: dict[str, Any] = {"sigma": None} | settings.plain()
    if callable(settings.network.activation):
        plain["network"]["activation"] = repr(settings.network.activation)
    return plain


Device = Annotated[
    Text,
    Field(
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        json_schema_extra={"expected": "auto, cpu, cuda or cuda:0 and so on"},
    ),
]


@section("denoising")
class DenoisingSection(DenoiseSettings):
    """The section `denoising` of a configuration; docs/denoising.md explains the method."""

    devices: Annotated[tuple[Device, ...], Field(min_length=1, max_length=64)] = ("auto",)
    """Where the network lives: one device, or two of which the first holds its first units. With
    `fits_at_once` one or two for each of these fits, in order."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.devices)) < len(self.devices):
            raise SettingError(
                "devices",
                f"expected one device or two different ones, found {list(self.devices)}",
            )
        if len(self.devices) not in (self.fits_at_once, 2 * self.fits_at_once):
            raise SettingError(
                "devices",
                f"expected one or two for each of {self.fits_at_once} fit(s) at once, found "
                f"{list(self.devices)}",
            )
        if self.precision == "float16" and "cpu" in self.devices:
            raise SettingError(
                "precision",
                f"float16 needs GPUs, found devices {list(self.devices)}; use float32 or bfloat16",
            )
