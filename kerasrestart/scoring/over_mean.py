"""Scores over the mean of their layer; readable without TensorFlow.

All scores fall with the loss: their ratio shows useless filters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def over_mean(scores: np.ndarray) -> np.ndarray:
    """Divides a layer's scores by their mean; zeros where the mean is zero."""
    mean = scores.mean(dtype=np.float64)
    return np.zeros_like(scores) if mean == 0 else (scores / mean).astype(scores.dtype)


def lowest_over_mean(scores: Sequence[float] | np.ndarray) -> float | None:
    """The lowest score of a layer over the mean of all; None where the mean is zero."""
    mean = np.mean(scores, dtype=np.float64)
    return None if mean == 0 else float(np.min(scores) / mean)
