"""The public names of the package, each loaded when it is first used."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import lazy_loader

from kerasrestart.network.keras_backend import check_keras


def attach(
    package: str, file: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Returns the `__getattr__`, `__dir__` and `__all__` of a package that has a stub file.

    As `lazy_loader.attach_stub`, and an unknown name is an `AttributeError` before anything is
    loaded, and a backend of Keras other than TensorFlow is an `ImportError` of one line.

    Args:
        package: Name of the package.
        file: Path of its `__init__.py`. The names are those of the `__init__.pyi` beside it.
    """
    load, list_names, names = lazy_loader.attach_stub(package, file)

    def load_name(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            loaded = load(name)
        except Exception:
            check_keras()  # says so in one line if the reason is Keras's backend or settings
            raise
        if "keras" in sys.modules:
            check_keras()
        return loaded

    return load_name, list_names, names
