"""The names that flags take, where they can be read without importing TensorFlow."""

from __future__ import annotations

DATASETS = ("auto", "cifar10", "shapes")
MODELS = ("mininet", "alexnet", "resnet20")
ALEXNET_LEAST_SIDE = 63  # pixels: below that its last pooling has no position
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")
ON_NAN = ("stop", "rollback")
TASKS = ("none", "random_labels", "shuffled_classes")
STRATEGIES = ("none", "mirrored")
TRIGGERS = ("plateau", "epochs")
