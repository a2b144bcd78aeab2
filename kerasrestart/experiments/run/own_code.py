"""The objects that settings name as `module:function`, loaded and checked."""

from __future__ import annotations

from typing import Any

from kerasrestart.experiments import references
from kerasrestart.experiments.combinations import bare_criterion
from kerasrestart.experiments.setting import SettingError
from kerasrestart.experiments.settings import SETTINGS, RunSettings
from kerasrestart.experiments.sources import errors_name_reference, references_in, source_hashes
from kerasrestart.network.own_functions import form_of, takes


def load_code(settings: RunSettings) -> None:
    """Imports all code that settings name, so that what is wrong with it shows before any work.

    All files are looked at first: a wrong name is refused without importing TensorFlow.

    Raises:
        SettingError: There is no such code, or it fails.
    """
    values = settings.to_dict()
    source_hashes(values)
    for name, texts in references_in(values).items():
        for text in texts:
            load_object(name, text)


def load_object(name: str, text: str) -> Any:
    """Imports the object that a setting names.

    Args:
        name: The setting.
        text: Its reference, of a criterion with or without `reversed_`.

    Raises:
        SettingError: There is no such object, its module fails, or it is of another kind.
    """
    bare = bare_criterion(text) if name == "criterion" else text
    with errors_name_reference(name, bare):
        found = references.load(bare)
    if name == "dataset":
        return found
    try:
        return _CHECKS[name](found, is_reversed=bare != text)
    except (ValueError, TypeError) as error:
        raise SettingError(
            f"--{name} must be {SETTINGS[name].reference}. Received: {text!r}: {error}"
        ) from error


def make_callbacks(settings: RunSettings) -> list[Any]:
    """Makes the callbacks and observers that `--callback` names, new ones for each run.

    Raises:
        SettingError: One fails, or makes something else.
    """
    import keras

    from kerasrestart.restart.observer import RestartObserver

    made = []
    for text in references_in(settings.to_dict()).get("callback", ()):
        with errors_name_reference("callback", text):
            found = references.call(text)
        if not isinstance(found, keras.callbacks.Callback | RestartObserver):
            raise SettingError(
                f"--callback must be {SETTINGS['callback'].reference}. Received: {text!r}, which "
                f"makes {type(found).__name__!r}"
            )
        made.append(found)
    return made


def _callback(found: Any, is_reversed: bool) -> Any:
    del is_reversed
    return _function(found)


def _network(found: Any, is_reversed: bool) -> Any:
    del is_reversed
    return _function(found, "input_shape", "classes")


def _function(found: Any, *arguments: str) -> Any:
    if not callable(found):
        raise TypeError(f"it is not a function: {type(found).__name__}")
    if not takes(found, *arguments):
        called = f"({', '.join(arguments)})" if arguments else "no argument"
        raise TypeError(f"it cannot be called with {called}: {form_of(found)}")
    return found


def _initializer(found: Any, is_reversed: bool) -> Any:
    from kerasrestart.restart import initializers

    del is_reversed
    try:
        initializers.get(found)
    except ValueError as error:
        kind = form_of(found) if callable(found) else type(found).__name__
        raise TypeError(f"it is neither: {kind}") from error
    return found


def _criterion(found: Any, is_reversed: bool) -> Any:
    from kerasrestart.scoring import criteria

    criterion = criteria.get(found)
    return criterion.reverse() if is_reversed else found


def _select(found: Any, is_reversed: bool) -> Any:
    from kerasrestart.restart.select_filters import check_select

    del is_reversed
    return check_select(found)


_CHECKS: dict[str, Any] = {
    "model": _network,
    "init": _initializer,
    "criterion": _criterion,
    "select": _select,
    "callback": _callback,
}
