"""What decides about the numbers of a prediction, so that two kinds never mix in one volume."""

import hashlib
import json
from typing import Any

from voxmill.config.prediction import PredictionSettings
from voxmill.networks.models import ModelCard
from voxmill.runtime.checked import json_checksum

_CARD = ("network", "settings", "outputs", "normalisation", "weights_sha256")
"""Fields of a card that decide about probabilities; the others tell of training and of cells."""


def numerical_class(settings: PredictionSettings) -> str:
    """Settings that give the same numbers: all backends do in single precision (to 1e-4).

    >>> numerical_class(PredictionSettings(backend="fourier"))
    'float32'
    >>> numerical_class(PredictionSettings(backend="torch", precision="bfloat16"))
    'bfloat16 by torch'
    """
    if settings.precision == "float32":
        return settings.precision
    return f"{settings.precision} by {settings.backend}"


def card_digest(card: ModelCard, *more: str) -> str:
    """Digest of what a card says about probabilities, and of more of its fields."""
    text = json.dumps({name: getattr(card, name) for name in (*_CARD, *more)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def identity(
    card: ModelCard, statistics: dict[str, Any], settings: PredictionSettings, code: str
) -> dict[str, Any]:
    """What all predictions of a model on a volume share, beside the tile and its voxels.

    Parameters
    ----------
    card : ModelCard
    statistics : dict
        Content of the volume's statistics file; its blocks and its tissue count by their digest.
    settings : PredictionSettings
        As configured, whatever device a job then holds.
    code : str
        Digest of the code.

    Returns
    -------
    dict
        Of texts and booleans, for JSON.
    """
    return {
        "model": card.weights_sha256[:16],
        "card": card_digest(card),
        "statistics": json_checksum(statistics)[:16],
        "numbers": numerical_class(settings),
        "flips": settings.flips,
        "code": code,
    }
