"""`Setting`: one definition from which the flag, its check, its help and its record are made."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from kerasrestart.experiments.paths import is_utf8
from kerasrestart.experiments.references import is_reference
from kerasrestart.network.text import did_you_mean

_WORDS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_ANY = object()
REFERENCE = "MODULE:FUNCTION"
"""The form of a value that names code of yours, see `kerasrestart.experiments.references`."""


class SettingError(ValueError):
    """A setting has a wrong value, or two settings exclude each other. The message names flags."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """The definition of one setting, which is also the flag `--name`.

    Example:
    ```python
    batch_size = Setting("batch_size", int, 128, "training", "Images of a training step.", least=1)
    batch_size.parse("64")    # 64
    batch_size.parse("none")  # SettingError: --batch_size must be a whole number ...
    ```

    Attributes:
        name: Name of the flag and of the field of `RunSettings`.
        type: `str`, `int`, `float`, `bool`; or `list`, values separated by commas.
        default: Value where nothing is given. None: the setting may be left out.
        group: Heading in `--help`.
        help: What it does, in whole sentences.
        choices: The values that a `str` or the items of a `list` can take. Defaults to (): any.
        forms: Other forms of such a value: `REFERENCE`, or with a prefix, such as "npz:FILE".
            Defaults to ().
        reference: What a `REFERENCE` leads to, in words that follow "must be". Defaults to "".
        least: Smallest value. Defaults to None: no limit.
        above: The value must be larger than this. Defaults to None: no limit.
        most: Largest value. Defaults to None: no limit.
        below: The value must be smaller than this. Defaults to None: no limit.
        valid: A further check of a value. Defaults to None.
        expected: What `valid` accepts, such as "a regular expression".
        repeated: Whether a `list` is typed as one flag for each item. Defaults to False.
        argument: The library's argument that it sets, if that has another name. Defaults to "".
        after_baseline: Whether it changes nothing before the first restart, so that runs that
            differ in it can share a baseline. Defaults to False.
        same_on_resume: What of its value must stay the same when a run is resumed, as a function of
            the value. Defaults to None: all of it.
        in_study: What is typed for a study instead, such as "--seeds"; a study refuses the flag
            itself. Defaults to "": the flag.
        fixed_in_study: The one value that all runs of a study have. Defaults to any.
    """

    name: str
    type: type
    default: Any
    group: str
    help: str
    choices: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    reference: str = ""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    valid: Callable[[Any], bool] | None = None
    expected: str = ""
    repeated: bool = False
    argument: str = ""
    after_baseline: bool = False
    same_on_resume: Callable[[Any], Any] | None = None
    in_study: str = ""
    fixed_in_study: Any = _ANY

    @property
    def is_fixed_in_study(self) -> bool:
        """Whether all runs of a study have the same value."""
        return self.fixed_in_study is not _ANY

    def parse(self, text: str) -> Any:
        """Reads a value as it is typed.

        Args:
            text: The value, such as "0.1".

        Returns:
            The value, checked.

        Raises:
            SettingError: The value is of another type or out of range.
        """
        value: Any = text
        try:
            if self.type is bool:
                value = _WORDS[text.lower()]
            elif self.type is list:
                value = [item.strip() for item in text.split(",")] if text else []
            elif self.type is not str:
                value = self.type(text)
        except (KeyError, ValueError) as error:
            raise self._error(text) from error
        self.check(value)
        return value

    def check(self, value: Any) -> None:
        """Checks a value.

        Args:
            value: The value, of any type.

        Raises:
            SettingError: It is of another type, out of range, or not among the choices.
        """
        if value is None and self.default is None:
            return
        if not self._has_type(value) or (self.valid is not None and not self.valid(value)):
            raise self._error(value)
        if self.type in (int, float):
            if not self._in_range(value):
                raise self._error(value)
        elif self.type in (str, list):
            for item in self.items(value):
                if (self.choices or self.forms) and not self._is_choice(item):
                    raise self._error(item)

    def items(self, value: Any) -> list[str]:
        """The single values of a text; several of one that can be repeated have commas."""
        if self.type is list:
            return list(value)
        return value.split(",") if self.repeated else [value]

    def references(self, value: Any) -> list[str]:
        """The references to code among the single values of a text."""
        if value is None or REFERENCE not in self.forms:
            return []
        return [
            item
            for item in self.items(value)
            if item not in self.choices and not self._has_prefix(item)
        ]

    def _is_choice(self, item: str) -> bool:
        if item in self.choices or self._has_prefix(item):
            return True
        return REFERENCE in self.forms and is_reference(item)

    def _has_prefix(self, item: str) -> bool:
        prefixes = [form.partition(":")[0] + ":" for form in self.forms if form != REFERENCE]
        return any(item.startswith(prefix) and item != prefix for prefix in prefixes)

    def _has_type(self, value: Any) -> bool:
        if self.type is str:  # a flagfile has one line for it
            is_line = isinstance(value, str) and len(f"{value}.".splitlines()) == 1
            return is_line and is_utf8(value)
        if self.type is float:
            return isinstance(value, int | float) and not isinstance(value, bool)
        return isinstance(value, self.type) and (self.type is bool or not isinstance(value, bool))

    def _in_range(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def _error(self, value: Any) -> SettingError:
        hint = did_you_mean(value, self.choices) if isinstance(value, str) else ""
        return SettingError(f"--{self.name} must be {self.range}. Received: {value!r}{hint}")

    @property
    def range(self) -> str:
        """The values that it takes, in words that follow "must be"."""
        if self.forms:
            *most, last = (*self.choices, *self.forms)
            return f"one of {', '.join(most)}, or {last}" if most else last
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.expected:
            return self.expected
        if self.type not in (int, float):
            return {bool: "true or false", list: "a list separated by commas"}.get(
                self.type, "a text of one line in UTF-8"
            )
        limits = [
            f"above {self.above}" if self.above is not None else "",
            f"{self.least} or more" if self.least is not None else "",
            f"at most {self.most}" if self.most is not None else "",
            f"below {self.below}" if self.below is not None else "",
        ]
        kind = "a whole number" if self.type is int else "a finite number"
        return ", ".join([kind, *filter(None, [" and ".join(filter(None, limits))])])

    def as_flag(self, value: Any) -> str:
        """Writes a value as a flag, such as `--fraction=0.1` or `--noaugment`."""
        if self.type is bool:
            return f"--{self.name}" if value else f"--no{self.name}"
        if self.type is list:
            value = ",".join(value)
        return f"--{self.name}={value}"

    def usage(self) -> str:
        """How the flag is typed, as `--help` shows it."""
        if self.type is bool:
            return f"--[no]{self.name}"
        if self.choices and not self.forms and len("|".join(self.choices)) <= 48:
            return f"--{self.name}={'|'.join(self.choices)}"
        kind = {int: "N", float: "X", str: "NAME" if self.choices else "TEXT", list: "LIST"}
        return f"--{self.name}={'TEXT' if self.repeated else kind[self.type]}"

    def description(self) -> str:
        """The help with the choices and the default, as `--help` shows it."""
        listed = (self.choices or self.forms) and "|" not in self.usage()
        words = ", ".join((*self.choices, *self.forms))
        choices = f" {'One of' if self.choices else 'As'}: {words}." if listed else ""
        default = self.default
        if self.type is list:
            default = ",".join(default)
        elif self.type is bool:
            default = str(default).lower()
        known = self.default not in (None, []) and "Default:" not in self.help
        return f"{self.help}{choices}{f' Default: {default}.' if known else ''}"


def as_arguments(message: str) -> str:
    """Turns a message about flags into one about arguments of the same names."""
    return re.sub(r"(?<![\w-])--(?=[a-z])", "", message)


def parse_words(words: Collection[str], settings: Mapping[str, Setting]) -> dict[str, Any]:
    """Reads settings as an arm of a study has them, such as `fraction=0.2` or `nostop_on_repeat`.

    Args:
        words: One for each setting.
        settings: The settings that can be given, by name.

    Returns:
        By name, the values.

    Raises:
        SettingError: A name is not known, or a value is wrong.
    """
    values = {}
    for word in words:
        name, has_value, text = word.partition("=")
        if not has_value:  # a boolean
            is_on = name in settings or not name.startswith("no")
            name, text = (name, "true") if is_on else (name.removeprefix("no"), "false")
        if name not in settings:
            raise SettingError(
                f"--{name} must be a setting of a run. Received: {word!r}"
                f"{did_you_mean(name, settings)}"
            )
        if not has_value and settings[name].type is not bool:
            raise SettingError(
                f"--{name} must have a value, as in {name}=VALUE. Received: {word!r}"
            )
        values[name] = settings[name].parse(text)
    return values
