"""The names that flags take, where they can be read without importing TensorFlow."""

from __future__ import annotations

DATASETS = ("auto", "cifar10", "shapes")
MODELS = ("mininet", "alexnet", "resnet20")
ALEXNET_LEAST_SIDE = 63  # pixels: below that its last pooling has no position
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")
REVERSED = "reversed_"
_CRITERIA = (
    *("taylor", "taylor_weight", "magnitude", "magnitude_l2"),
    *("activation", "apoz", "gradient", "random"),
)
CRITERIA = _CRITERIA + tuple(REVERSED + name for name in _CRITERIA)
SELECTION_SCOPES = ("layer", "global")
SELECTION_NORMALIZATIONS = ("none", "l2", "mean")
ON_NAN = ("stop", "rollback")
OUTGOING = ("keep", "zero")
SECOND_MOMENTS = ("zero", "survivors")
TASKS = ("none", "random_labels", "shuffled_classes")
STRATEGIES = ("none", "mirrored", "multiworker")
TRIGGERS = ("plateau", "epochs")

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
