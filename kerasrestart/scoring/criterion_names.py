"""The names that `criterion=` takes; readable without TensorFlow."""

from __future__ import annotations

REVERSED = "reversed_"
_NAMES = (
    *("taylor", "taylor_weight", "magnitude", "magnitude_l2"),
    *("activation", "contribution", "apoz", "gradient", "orthogonality", "random"),
)
WITHOUT_BATCHES = ("magnitude", "magnitude_l2", "orthogonality", "random")
CRITERIA = _NAMES + tuple(REVERSED + name for name in _NAMES)
