"""The networks by the name that `--model` takes."""

import importlib
from typing import Any

from kerasrestart.experiments.settings import MODELS

NETWORKS: dict[str, Any] = {
    name: getattr(importlib.import_module(f"kerasrestart.experiments.models.{name}"), name)
    for name in MODELS
}
"""By name, a function `(input_shape, classes)` that returns a Functional model ending in logits."""
