"""The networks of the experiments: `kerasrestart.models.mininet()`."""

from kerasrestart.experiments.models import alexnet, mininet, resnet20

__all__ = ["alexnet", "mininet", "resnet20"]
