"""The networks that are measured, with the size of their images and batches."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Network:
    """A network as it is measured.

    Attributes:
        module: Module that has the function which builds it.
        function: Its name.
        side: Height and width of an image in pixels.
        batch: Examples in a batch.
        steps: Training steps in a measured epoch: a few seconds on two cores.
        most: How many times the CPU time of a plain epoch one with scores may take at most.
        arguments: Further arguments of the function.
    """

    module: str
    function: str
    side: int
    batch: int
    steps: int
    most: float
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)

    def build(self):
        """Builds and compiles it, with the same weights each time."""
        import keras

        keras.utils.set_random_seed(0)
        shape = (self.side, self.side, 3)
        build = getattr(importlib.import_module(self.module), self.function)
        model = build(input_shape=shape, classes=10, **self.arguments)
        model.compile(
            keras.optimizers.SGD(0.001, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        return model

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """One batch: float32 `[batch, side, side, 3]` and int32 `[batch]`."""
        generator = np.random.default_rng(0)
        images = generator.normal(size=(self.batch, self.side, self.side, 3))
        return images.astype("float32"), generator.integers(0, 10, self.batch, dtype="int32")

    def batches(self, steps: int):
        """A data set of `steps` batches in memory, all the same."""
        import tensorflow as tf

        return tf.data.Dataset.from_tensors(self.arrays()).repeat(steps)


OWN = "kerasrestart.models"
WRITTEN = "benchmarks.own_models"
NETWORKS = {
    "mininet": Network(OWN, "mininet", side=32, batch=128, steps=16, most=1.02),
    "alexnet": Network(OWN, "alexnet", side=64, batch=64, steps=8, most=1.02),
    "resnet20": Network(OWN, "resnet20", side=32, batch=128, steps=8, most=1.05),
    "mobilenetv2": Network(
        "keras.applications",
        "MobileNetV2",
        side=96,
        batch=32,
        steps=8,
        most=1.05,
        arguments={"weights": None, "classifier_activation": None},
    ),
    "subclassed_resnet": Network(
        WRITTEN, "subclassed_resnet", side=32, batch=128, steps=8, most=1.05
    ),
    "vae": Network(WRITTEN, "vae", side=32, batch=128, steps=8, most=1.05),
}
