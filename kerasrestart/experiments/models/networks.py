"""The networks by the name that `--model` takes."""

from typing import Any

from kerasrestart.experiments.models.alexnet import alexnet
from kerasrestart.experiments.models.mininet import mininet
from kerasrestart.experiments.models.resnet20 import resnet20

NETWORKS: dict[str, Any] = {"mininet": mininet, "alexnet": alexnet, "resnet20": resnet20}
"""By name, a function `(input_shape, classes)` that returns a Functional model ending in logits."""
