"""The networks of the experiments, and the registry behind `--model`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kerasrestart.names import MODELS

if TYPE_CHECKING:
    from kerasrestart.models.mininet import mininet

# Each of `names.MODELS` is the name of a module here and of the function in it that builds the
# model. It takes (input_shape, classes) and gives a Functional model that ends in logits.
__all__ = ["mininet"]


def __getattr__(name: str) -> Any:
    if name not in MODELS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    function = getattr(importlib.import_module(f"kerasrestart.models.{name}"), name)
    globals()[name] = function  # in place of the module, which the import has put there
    return function


def __dir__() -> list[str]:
    return sorted([*globals(), *MODELS])
