"""Which settings have an effect only with others: without these, a value would do nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from kerasrestart.experiments.combinations import UNTESTED_TASKS
from kerasrestart.experiments.setting import Setting, SettingError
from kerasrestart.scoring.criterion_names import REVERSED, WITHOUT_BATCHES


@dataclasses.dataclass(frozen=True)
class Requirement:
    """What another setting must be.

    Attributes:
        name: The other setting.
        words: What it must be, such as "--optimizer=adam or adamw".
        holds: Whether it is that, as a function of its value.
    """

    name: str
    words: str
    holds: Callable[[Any], bool]


def _one_of(name: str, *values: str) -> Requirement:
    *most, last = values
    words = f"{', '.join(most)} or {last}" if most else last
    return Requirement(name, f"--{name}={words}", lambda value: value in values)


_PLATEAU = (_one_of("trigger", "plateau"),)
_SHRINK = (_one_of("remedy", "shrink_and_perturb"),)
_SECOND_MOMENTS = (_one_of("optimizer", "adam", "adamw", "rmsprop"),)
_SELECT = (Requirement("matched_run", "no --matched_run", lambda value: value is None),)
_BATCHES = (
    Requirement(
        "criterion",
        "a --criterion of batches, such as taylor",
        lambda value: value.removeprefix(REVERSED) not in WITHOUT_BATCHES,
    ),
    Requirement("compensate_bias", "--compensate_bias", bool),
)

# A control repeats the flags of another run with --init=none or --init=slots, a run may end before
# its first restart, and a script may always pass its --data_dir: settings that have no effect for
# these reasons are accepted.
NEEDS: Mapping[str, tuple[Requirement, ...]] = {
    "label_noise": (_one_of("tasks", "none", "shuffled_classes", "class_subsets"),),
    **dict.fromkeys(("select", "fraction", "cap", "normalize", "min_survivors"), _SELECT),
    "grace_restarts": (_one_of("outgoing", "zero"),),
    "second_moment": _SECOND_MOMENTS,
    "norms": (
        _one_of("norm", "batch", "layer"),
        Requirement(
            "model", "a --model with norms", lambda name: name not in ("mininet", "alexnet")
        ),
    ),
    **dict.fromkeys(("score_every", "score_window"), _BATCHES),
    **dict.fromkeys(("shrink", "perturb"), _SHRINK),
    **dict.fromkeys(("patience", "min_delta"), _PLATEAU),
    "round_epochs": (_one_of("trigger", "epochs"),),
    "learning_rate_factor": (
        Requirement("learning_rate_drops", "--learning_rate_drops=1 or more", bool),
        _one_of("on_nan", "rollback"),
    ),
    "momentum": (_one_of("optimizer", "sgd", "rmsprop"),),
    "beta_2": (_one_of("optimizer", "adam", "adamw"),),
    "epsilon": _SECOND_MOMENTS,
    "test_each_epoch": (
        Requirement(
            "tasks", "--tasks=none or shuffled_classes", lambda name: name not in UNTESTED_TASKS
        ),
    ),
}
"""By setting: it has an effect where one of these holds. Others always have one."""


def without_effect(
    values: Mapping[str, Any], settings: Mapping[str, Setting]
) -> dict[str, SettingError]:
    """Finds settings that are not the default and do nothing, because of others.

    Args:
        values: Settings of a run, by name; a missing one counts as its default.
        settings: Their definitions, by name.

    Returns:
        By name, the error that says what the setting needs.
    """
    values = {name: setting.default for name, setting in settings.items()} | dict(values)
    found = {}
    for name, needs in NEEDS.items():
        value, default = values[name], settings[name].default
        if value == default or any(need.holds(values[need.name]) for need in needs):
            continue
        words = ", or ".join(need.words for need in needs)
        received = " and ".join(_typed(settings[need.name], values[need.name]) for need in needs)
        flag = settings[name].as_flag
        usual = "left out" if default is None else f"the default, {flag(default)}"
        found[name] = SettingError(
            f"--{name} has an effect only with {words}: otherwise it must be {usual}. Received: "
            f"{flag(value)} with {received}"
        )
    return found


def _typed(setting: Setting, value: Any) -> str:
    return f"no --{setting.name}" if value is None else setting.as_flag(value)
