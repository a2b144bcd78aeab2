"""Data sets and the batches made from them.

Importing this package does not import TensorFlow, so that a command line can refuse a wrong
argument immediately. TensorFlow is imported when a batch function is first used.
"""

from typing import TYPE_CHECKING, Any

from kerasrestart.experiments.data.dataset import ImageData, Split
from kerasrestart.experiments.data.errors import DataError
from kerasrestart.experiments.data.registry import load

if TYPE_CHECKING:
    from kerasrestart.experiments.data.pipeline import (
        evaluation_batches,
        steps_per_epoch,
        train_batches,
    )

__all__ = [
    "DataError",
    "ImageData",
    "Split",
    "evaluation_batches",
    "load",
    "steps_per_epoch",
    "train_batches",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kerasrestart.experiments.data import pipeline

    return getattr(pipeline, name)
