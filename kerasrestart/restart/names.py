"""The names that options of a restart take, where they can be read without importing TensorFlow."""

from __future__ import annotations

REVERSED = "reversed_"
_CRITERIA = (
    *("taylor", "taylor_weight", "magnitude", "magnitude_l2"),
    *("activation", "apoz", "gradient", "random"),
)
CRITERIA = _CRITERIA + tuple(REVERSED + name for name in _CRITERIA)
SELECTION_SCOPES = ("layer", "global")
SELECTION_NORMALIZATIONS = ("none", "l2", "mean")
OUTGOING = ("keep", "zero")
SECOND_MOMENTS = ("zero", "survivors")

PAPER_INITIALIZERS = ("uniform", "he", "xavier", "minmax", "distribution", "none")
SLOTS = "slots"  # the control that resets the optimizer's slots alone
# Those that look at the surviving filters of the same layer.
SURVIVOR_INITIALIZERS = ("orthogonal_to_survivors", "norm_matched", "clone")
# Those of Keras that can draw the kernel of a convolution, and need no argument to.
KERAS_INITIALIZERS = (
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "ones",
    "orthogonal",
    "random_normal",
    "random_uniform",
    "truncated_normal",
    "variance_scaling",
    "zeros",
)
INITIALIZERS = (*PAPER_INITIALIZERS, SLOTS, *SURVIVOR_INITIALIZERS, *KERAS_INITIALIZERS)
