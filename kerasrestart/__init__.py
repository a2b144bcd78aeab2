"""Partial restart for Keras: finds useless filters, re-initialises only those and trains on.

The public names are those of `__init__.pyi`. Each is loaded when it is first used, so that the
command line can check its flags without importing TensorFlow.
"""

import sys
from typing import Any

import lazy_loader

__version__ = "0.1.0"

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    from kerasrestart.network.keras_backend import check_keras

    try:
        loaded = _load(name)
    except Exception:
        check_keras()  # says so in one line if the reason is Keras's backend or settings
        raise
    if "keras" in sys.modules:
        check_keras()
    return loaded
