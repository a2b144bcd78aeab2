"""The networks of the experiments.

Each name that `--model` takes (`kerasrestart.names.MODELS`) is a function here. It takes
`(input_shape, classes)` and gives a Functional model that ends in logits.
"""

from kerasrestart.models.alexnet import alexnet
from kerasrestart.models.mininet import mininet
from kerasrestart.models.resnet20 import resnet20

__all__ = ["alexnet", "mininet", "resnet20"]
