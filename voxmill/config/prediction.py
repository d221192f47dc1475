"""How a network is run."""

from typing import Literal

from voxmill.config.base import Flag, Section, section

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16", "float16", "shared16"]


@section("prediction")
class PredictionSettings(Section):
    """How a network is run; its card says what it is."""

    backend: Literal[
        "auto",
        "stencil",
        "fourier",
        "gpu-fourier",
        "gpu-fused",
        "gpu-direct",
        "torch-fast",
        "openvino",
        "onnxruntime",
        "torch",
    ] = "auto"
    """How the network is evaluated; auto takes the fastest present and logs it."""
    device: Device = "auto"
    """auto takes a GPU where the job sees one."""
    precision: Precision = "float32"
    """Numbers that the network computes with. shared16 halves the memory of the backend fourier
    (spectra of 16 bits a real number); bfloat16 is for torch and openvino, float16 for torch and
    the GPU backends."""
    flips: Flag = False
    """Predict the mean over the eight mirror images of each box, at eight times the cost."""

    @property
    def flip_axes(self) -> tuple[int, ...]:
        """Axes that `voxmill.prediction.flips` mirrors."""
        return (0, 1, 2) if self.flips else ()
