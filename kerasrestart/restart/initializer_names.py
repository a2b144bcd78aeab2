"""The names that `initializer=` takes; readable without TensorFlow."""

from __future__ import annotations

PAPER_INITIALIZERS = ("uniform", "he", "xavier", "minmax", "distribution")
# These compute new weights from the surviving filters of the same layer.
SURVIVOR_INITIALIZERS = ("orthogonal_to_survivors", "norm_matched", "clone")
OWN_INITIALIZER = "own"  # that of each layer
# Keras's own that can draw the kernel of a convolution and need no argument.
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
INITIALIZERS = (
    *PAPER_INITIALIZERS,
    *SURVIVOR_INITIALIZERS,
    OWN_INITIALIZER,
    *KERAS_INITIALIZERS,
)

CONTROLS = ("none", "slots")  # values of `PartialRestart(control=)`, which draw no weights
