"""The names that flags take, where they can be read without importing TensorFlow."""

from __future__ import annotations

DATASETS = ("auto", "cifar10", "shapes")
MODELS = ("mininet",)
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")
CRITERIA = ("taylor",)
OUTGOING = ("keep",)
TRIGGERS = ("plateau", "epochs")

PAPER_INITIALIZERS = ("uniform", "he", "xavier", "minmax", "distribution", "none")
# Those of Keras that can draw the kernel of a convolution.
KERAS_INITIALIZERS = (
    "constant",
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
INITIALIZERS = PAPER_INITIALIZERS + KERAS_INITIALIZERS
