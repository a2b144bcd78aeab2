"""The networks of the experiments: `kerasrestart.models.mininet()`.

Each name that `--model` takes is a function here. It takes `(input_shape, classes)` and returns a
Functional model that ends in logits.
"""

from kerasrestart.experiments.models.alexnet import alexnet
from kerasrestart.experiments.models.mininet import mininet
from kerasrestart.experiments.models.resnet20 import resnet20

__all__ = ["alexnet", "mininet", "resnet20"]
