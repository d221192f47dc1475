"""NVIDIA cards: one name for each, whatever a job calls it, and what PyTorch has kernels for.

Importing this module does not import torch.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# The wheels of PyTorch 2.13 by the oldest and the newest compute capability that they have code
# for, and the file that installs each; RELEASE.md of PyTorch has the table.
WHEELS = (
    ((7, 5), (12, 1), "CUDA 13", "requirements-cuda13.lock"),
    ((5, 0), (9, 0), "CUDA 12.6", "requirements-cuda126.lock"),
)
# cuDNN versions, as torch.backends.cudnn.version() has them, whose 3D convolutions in half
# precision are slow and large (pytorch/pytorch#166643), or wrong (pytorch/pytorch#163539).
_BAD_CUDNN = range(90800, 91500)


@dataclass(frozen=True)
class Card:
    """A card of this machine.

    Parameters
    ----------
    uuid : str
        "GPU-...".
    slices : tuple of str
        UUIDs of its MIG slices, "MIG-..."; where there are any, jobs use them and not the card.
    """

    uuid: str
    slices: tuple[str, ...] = ()


@functools.cache
def listed() -> tuple[Card, ...]:
    """The machine's cards in the order of their PCI buses; none where `nvidia-smi` is none."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse(done.stdout)


def parse(text: str) -> tuple[Card, ...]:
    """Cards in the output of `nvidia-smi -L`.

    >>> lines = "GPU 0: A100 (UUID: GPU-5d)", "  MIG 1g.5gb  Device  0: (UUID: MIG-7a)"
    >>> parse(os.linesep.join(lines))
    (Card(uuid='GPU-5d', slices=('MIG-7a',)),)
    """
    cards: list[Card] = []
    for line in text.splitlines():
        if match := re.match(r"GPU \d+: .*\(UUID: (GPU-[^)]+)\)", line):
            cards.append(Card(match[1]))
        elif cards and (match := re.match(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)", line)):
            cards[-1] = Card(cards[-1].uuid, (*cards[-1].slices, match[1]))
    return tuple(cards)


def in_cuda_order() -> tuple[Card, ...]:
    """The machine's cards as CUDA counts them; none where it does not count by PCI buses.

    `voxmill.runtime.devices.claim` makes it do so, unless the environment says otherwise.
    """
    order = os.environ.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    return listed() if order == "PCI_BUS_ID" else ()


def names_of_all(number: int) -> list[str]:
    """What jobs of this machine may take: each card by its number, or its slices by their UUIDs."""
    cards = in_cuda_order() if number else ()
    if len(cards) != number or not any(card.slices for card in cards):
        return [str(index) for index in range(number)]
    return [name for i, card in enumerate(cards) for name in card.slices or (str(i),)]


def one_name(name: str, cards: Sequence[Card]) -> str:
    """The UUID of a card or slice, if it is known; CUDA takes numbers and the first signs too.

    A number stands for the first slice of a card that has slices, as in CUDA.

    Parameters
    ----------
    name : str
        One of `CUDA_VISIBLE_DEVICES`.
    cards : sequence of Card
        In the order in which CUDA counts.

    Examples
    --------
    >>> cards = Card("GPU-5d01"), Card("GPU-77aa", ("MIG-01", "MIG-02"))
    >>> [one_name(name, cards) for name in ("0", "GPU-5d", "1", "MIG-02", "9")]
    ['GPU-5d01', 'GPU-5d01', 'MIG-01', 'MIG-02', '9']
    """
    if name.isdecimal():
        found = list(cards[int(name) : int(name) + 1])
    else:
        found = [card for card in cards if card.uuid.startswith(name)]
    if len(found) != 1:
        return name
    return next(iter(found[0].slices), found[0].uuid)


def without_kernels(
    capability: tuple[int, int], architectures: Iterable[str], version: str
) -> str | None:
    """None if a PyTorch has code for a card, else what it lacks and which one works.

    Parameters
    ----------
    capability : (2,) int
        Compute capability, major and minor, as of `torch.cuda.get_device_capability`.
    architectures : iterable of str
        As of `torch.cuda.get_arch_list`: "sm_90" is machine code, which cards of the same major
        and no lesser minor number run, "compute_90" is code that newer drivers compile for any
        newer card.
    version : str
        Of PyTorch and of CUDA, for the message.

    Examples
    --------
    >>> without_kernels((8, 6), ["sm_75", "sm_80"], "2.13.0, CUDA 13.0")
    >>> print(without_kernels((7, 0), ["sm_75", "sm_80"], "2.13.0, CUDA 13.0"))
    compute capability 7.0, and this PyTorch (2.13.0, CUDA 13.0) has code for sm_75, sm_80 alone. \
Install PyTorch for CUDA 12.6: pip install -r requirements-cuda126.lock
    """
    known = list(architectures)
    if not known or any(_runs(name, capability) for name in known):
        return None
    fitting = [(cuda, file) for low, high, cuda, file in WHEELS if low <= capability <= high]
    advice = "No wheel of PyTorch 2.13 has; use another GPU, or device: cpu."
    if fitting:
        advice = f"Install PyTorch for {fitting[0][0]}: pip install -r {fitting[0][1]}"
    return (
        f"compute capability {capability[0]}.{capability[1]}, and this PyTorch ({version}) has "
        f"code for {', '.join(known)} alone. {advice}"
    )


def _runs(architecture: str, capability: tuple[int, int]) -> bool:
    match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", architecture)
    if match is None:
        return False
    code = int(match[2]), int(match[3])
    if match[4]:  # code of one card alone, such as sm_90a
        return code == capability
    return code <= capability and (match[1] == "compute" or code[0] == capability[0])


def cudnn_problem(version: int | None) -> str | None:
    """None, or what is wrong with 3D convolutions in half precision of a cuDNN.

    Parameters
    ----------
    version : int or None
        As of `torch.backends.cudnn.version`, 91002 for 9.10.2.

    Examples
    --------
    >>> cudnn_problem(92000)
    >>> cudnn_problem(91002)[:52]
    'cuDNN 9.10.2 computes 3D convolutions in half precis'
    """
    if version is None or version not in _BAD_CUDNN:
        return None
    number = f"{version // 10000}.{version // 100 % 100}.{version % 100}"
    return (
        f"cuDNN {number} computes 3D convolutions in half precision slowly, with several times the "
        "memory, and in 9.8 to 9.12 sometimes wrongly. Use precision float32, in "
        "predictions on an A100 or newer also the backend gpu-fourier, or install cuDNN 9.15 or "
        "newer (for a V100 there is none)"
    )
