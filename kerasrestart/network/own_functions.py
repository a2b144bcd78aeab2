"""Functions that users pass: their form is checked before any work, and their errors name them.

Readable without TensorFlow.
"""

from __future__ import annotations

import contextlib
import inspect
import pathlib
import traceback
from collections.abc import Iterator
from typing import Any

from kerasrestart.network.text import one_line, shown

_PACKAGE = str(pathlib.Path(__file__).parents[1])


def takes(function: Any, *arguments: Any, **named: Any) -> bool:
    """Whether a function can be called so; True where its signature is not known."""
    if not callable(function):
        return False
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # as of some functions written in C
        return True
    try:
        signature.bind(*arguments, **named)
    except TypeError:
        return False
    return True


def check_function(name: str, function: Any, form: str, *arguments: Any, **named: Any) -> None:
    """Refuses what is not a function of a form.

    Args:
        name: The argument that takes it.
        function: The value received.
        form: The form in words, as in "a function (model) -> None".
        *arguments: What it will be called with; only their number counts.
        **named: What it will be called with by name.

    Raises:
        ValueError: It is not a function, or cannot be called so.
    """
    if inspect.isclass(function) or not takes(function, *arguments, **named):
        raise ValueError(f"{name} must be {form}. Received: {form_of(function)}")


def form_of(function: Any) -> str:
    """A function as its name and arguments, such as "lowest(scores, count)"; else the `repr`."""
    if inspect.isclass(function) or not callable(function):
        return shown(function)
    try:
        signature = str(inspect.signature(function))
    except (TypeError, ValueError):
        signature = ""
    owner = f"{name_of(function.__self__)}." if inspect.ismethod(function) else ""
    return f"{owner}{name_of(function)}{signature}"


def name_of(function: Any) -> str:
    """The name of a function, or of an object's class."""
    return getattr(function, "__name__", type(function).__name__)


def is_own(function: Any) -> bool:
    """Whether a function, or an object's class, is the user's and not of this package."""
    has_name = hasattr(function, "__name__")
    module = getattr(function if has_name else type(function), "__module__", None) or ""
    return module.partition(".")[0] != "kerasrestart"


@contextlib.contextmanager
def naming(argument: str, received: Any) -> Iterator[None]:
    """Makes an error inside a user's function name the function and the argument.

    Args:
        argument: The argument that takes it, such as "select".
        received: The function, or its name. Those of this package raise their errors as they are.

    Raises:
        ValueError: The function raised an error.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(received, str) and not is_own(received):
            raise
        name = received if isinstance(received, str) else name_of(received)
        raised = f"{type(error).__name__}: {one_line(error)}{place_of(error)}"
        # With its traceback: fit drops the cause of an error.
        raise ValueError(
            f"{argument} must not raise an error. Received: {name}, which raised {raised}"
        ).with_traceback(error.__traceback__) from error


def place_of(error: BaseException) -> str:
    """Where in the user's code an error was raised: " (FILE, line N)", or ""."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame
        for frame in frames
        if "site-packages" not in frame.filename and not frame.filename.startswith(_PACKAGE)
    ]
    if not own:
        return ""
    return f" ({pathlib.Path(own[-1].filename).name}, line {own[-1].lineno})"
