"""Sweeps such as `fraction=0.1,0.2`: combinations of values, each with a name."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kerasrestart.experiments.references import short_name
from kerasrestart.experiments.setting import SettingError, parse_words
from kerasrestart.experiments.settings import SETTINGS
from kerasrestart.experiments.study.grid import SET_BY_THE_STUDY, PlanError, Values, refuse


@dataclasses.dataclass(frozen=True)
class Variation:
    """One combination of swept values.

    Attributes:
        values: By name, the settings.
        labels: By name, the setting in words, such as `fraction=0.1`. Runs are named by them; no
            value is read from one, since they lack the characters that a folder cannot have.
    """

    values: Values
    labels: Mapping[str, str]

    def label(self, without: Collection[str] = ()) -> str:
        """The labels of all settings but those of `without`, joined by `+`."""
        return "+".join(label for name, label in self.labels.items() if name not in without)


def parse_sweep(texts: Sequence[str], flag: str = "sweep") -> list[Variation]:
    """Reads sweeps such as `fraction=0.1,0.2` into combinations of settings.

    Equal values, such as 0.1 and 0.10, count once.

    Args:
        texts: One for each setting that is swept; several are crossed.
        flag: The flag that an error names. Defaults to "sweep".

    Raises:
        PlanError: A text has another form, or a flag or a value is wrong.
    """
    axes: dict[str, dict[Any, str]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        if not name or not all(values.split(",")):
            raise PlanError(f"--{flag} must be such as fraction=0.05,0.1. Received: {text!r}")
        if name in axes:
            raise PlanError(
                f"--{flag} must name a flag once, with all of its values. Received: {name!r} twice"
            )
        others = {"init": "--arms", "matched_run": "--arm=NAME:matched_run=ARM"}
        refuse(f"--{flag}={{name}}", [name], {**SET_BY_THE_STUDY, **others})
        axes[name] = {}
        for value in values.split(","):
            try:
                parsed = parse_words([f"{name}={value}"], SETTINGS)[name]
            except SettingError as error:
                raise PlanError(f"In '--{flag}={text}': {error}") from error
            if parsed not in axes[name]:
                axes[name][parsed] = _label(name, value, axes[name].values())
    return [
        Variation(
            {name: value for name, (value, _) in zip(axes, combination, strict=True)},
            {name: label for name, (_, label) in zip(axes, combination, strict=True)},
        )
        for combination in itertools.product(*(of.items() for of in axes.values()))
    ]


def _label(name: str, value: str, taken: Collection[str]) -> str:
    """The setting in characters that a folder's name may have, with a number if it is taken."""
    words = short_name(value) if SETTINGS[name].references(value) else value
    label = f"{name}={re.sub(r'[^A-Za-z0-9_.=+-]', '_', words)}"
    numbered = (f"{label}_{number}" for number in itertools.count(2))
    return next(one for one in itertools.chain([label], numbered) if one not in taken)
