"""The code that settings name: where it is, and whether it has changed."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from kerasrestart.experiments.combinations import bare_criterion
from kerasrestart.experiments.references import WrongReferenceError, find, sha256_of
from kerasrestart.experiments.setting import SettingError
from kerasrestart.experiments.settings import SETTINGS


def references_in(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """The references to code among settings.

    Args:
        values: Settings, by name.

    Returns:
        By setting, its references; a criterion without `reversed_`. Settings with none are left
        out.
    """
    found = {}
    for name, setting in SETTINGS.items():
        texts = setting.references(values.get(name))
        if texts:
            found[name] = [bare_criterion(text) if name == "criterion" else text for text in texts]
    return found


@contextlib.contextmanager
def errors_name_reference(name: str, text: str) -> Iterator[None]:
    """Turns an error of a reference into one that names its flag.

    Raises:
        SettingError: The block raised a WrongReferenceError.
    """
    try:
        yield
    except WrongReferenceError as error:
        setting = SETTINGS[name]
        raise SettingError(
            f"--{name} must be {setting.reference}. Received: {text!r}: {error}"
        ) from error


def source_hashes(values: Mapping[str, Any]) -> dict[str, str | None]:
    """Finds the code that settings name, without running it.

    Args:
        values: Settings, by name.

    Returns:
        By `setting=reference`, the SHA-256 of its file; None where it has none.

    Raises:
        SettingError: A reference leads to nothing.
    """
    hashes = {}
    for name, texts in references_in(values).items():
        for text in texts:
            with errors_name_reference(name, text):
                find(text)
                hashes[f"{name}={text}"] = sha256_of(text)
    return hashes


def changed_sources(
    was: Mapping[str, Any], now: Mapping[str, Any], ignored: Collection[str] = ()
) -> list[str]:
    """Names the code that has changed between two runs.

    Args:
        was: What `source_hashes` returned for the one.
        now: The same for the other.
        ignored: Names of settings that may differ. Defaults to none.

    Returns:
        A few words for each; none for code that only one of them names.
    """
    return [
        f"the code of --{key} has changed"
        for key in sorted(was.keys() & now.keys())
        if key.partition("=")[0] not in ignored and was[key] != now[key]
    ]
