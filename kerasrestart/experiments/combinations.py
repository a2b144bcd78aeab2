"""Which settings of a run go together, and the arguments of `PartialRestart` that they make."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from kerasrestart.experiments.references import is_reference
from kerasrestart.experiments.setting import SettingError
from kerasrestart.scoring.criterion_names import REVERSED

ALEXNET_MIN_SIDE = 63  # pixels: on smaller images its last pooling has no position

UNTESTED_TASKS = ("random_labels", "class_subsets")
"""Tasks in which accuracy on other images has no meaning: only training is measured."""

_SELECTIONS = {
    "fraction": "Fraction",
    "global_fraction": "GlobalFraction",
    "below_mean": "BelowMean",
}


def _select_nothing(scores: Any) -> dict[str, Any]:
    del scores
    return {}


# In place of your own code where settings are only checked.
_STAND_INS: dict[str, Callable[[str], Any]] = {
    "init": lambda reference: "uniform",
    "criterion": lambda name: f"{REVERSED if name.startswith(REVERSED) else ''}taylor",
    "select": lambda reference: _select_nothing,
}


def check_combination(values: Mapping[str, Any]) -> None:
    """Checks that settings go together.

    Args:
        values: All settings of a run, by name.

    Raises:
        SettingError: Two of them exclude each other.
    """
    _check_model(values)
    _check_data(values)
    _check_regime(values)
    if values["jit_compile"] and values["strategy"] != "none":
        raise SettingError(
            "--jit_compile compiles for one device: --strategy must be none. Received: "
            f"--strategy={values['strategy']}"
        )
    target, monitor = values["target"], values["monitor"]
    if target is not None and monitor.endswith("accuracy") and not 0 <= target <= 1:
        raise SettingError(f"--target of an accuracy must be between 0 and 1. Received: {target}")


def _check_model(values: Mapping[str, Any]) -> None:
    model, side, weights = values["model"], values["image_size"], values["weights"]
    if model == "alexnet" and (side or 0) < ALEXNET_MIN_SIDE:
        received = "no --image_size" if side is None else f"--image_size={side}"
        raise SettingError(
            "--model=alexnet needs larger images than those of the data sets: --image_size must be "
            f"{ALEXNET_MIN_SIDE} pixels or more, such as 64, or 224 as in the paper. Received: "
            f"{received}"
        )
    if values["width"] != 1 and model != "mininet":
        raise SettingError(f"--model must be mininet for --width. Received: --model={model}")
    if weights is not None and model != "alexnet":
        raise SettingError(f"--model must be alexnet for --weights. Received: --model={model}")
    if weights is None:
        for name, unused in (("freeze_features", False), ("pretrained_learning_rate_factor", 1)):
            if values[name] != unused:
                raise SettingError(
                    f"--{name} is for layers that have weights: --weights must be given. "
                    "Received: no --weights"
                )
    if values["activation"] == "crelu" and (model == "resnet20" or weights is not None):
        raise SettingError(
            "--activation=crelu doubles the channels: with --model=resnet20 or --weights, "
            f"--activation must be relu or leaky_relu. Received: --model={model}"
        )
    if is_reference(model):
        for name, default in (("activation", "relu"), ("norm", None)):
            if values[name] != default:
                raise SettingError(
                    f"--{name} is for the networks of this package: --model must be one that has "
                    f"it. Received: --{name}={values[name]} with --model={model}"
                )
    if values["freeze_features"] and values["layers"] is None:
        raise SettingError(
            "--freeze_features leaves only dense layers to restart: --layers must be their names, "
            "as in --layers=dense.*. Received: no --layers"
        )


def _check_data(values: Mapping[str, Any]) -> None:
    dataset = values["dataset"]
    if dataset.startswith("folder:") and values["image_size"] is None:
        raise SettingError(
            "--dataset=folder:PATH resizes all images to one size: --image_size must be their "
            "height and width in pixels, as in --image_size=64. Received: no --image_size"
        )


def _check_regime(values: Mapping[str, Any]) -> None:
    tasks, warm_start = values["tasks"], values["warm_start_fraction"]
    if tasks == "none" and warm_start is None:
        return
    if tasks != "none" and warm_start is not None:
        raise SettingError(
            "--tasks and --warm_start_fraction must not be given together. Received: "
            f"--tasks={tasks}, --warm_start_fraction={warm_start}"
        )
    if values["trigger"] != "epochs":
        raise SettingError(
            "--tasks and --warm_start_fraction change the data in each round, so all rounds must "
            f"be equally long, with --trigger=epochs. Received: --trigger={values['trigger']}"
        )
    if tasks in UNTESTED_TASKS and values["monitor"].startswith("val_"):
        raise SettingError(
            f"With --tasks={tasks} nothing can be validated: --monitor must be accuracy or loss. "
            f"Received: --monitor={values['monitor']}"
        )


def bare_criterion(criterion: str) -> str:
    """A reference to a criterion without the word that reverses it."""
    return criterion.removeprefix(REVERSED) if is_reference(criterion) else criterion


def restart_plan_arguments(
    values: Mapping[str, Any], load: Callable[[str, str], Any] | None = None
) -> dict[str, Any]:
    """Makes the parts of `PartialRestart`, which check themselves.

    Args:
        values: All settings of a run, by name.
        load: Imports what a setting refers to; its arguments are the setting's name and its
            reference. Defaults to None: nothing is imported, and the parts are only for a check.

    Returns:
        The arguments of `RestartPlan`.

    Raises:
        ValueError: An argument is out of range, or two exclude each other; in the library's words.
        SettingError: The selection has no such option.
    """
    # NumPy comes with these: `--help` answers without it.
    from kerasrestart.restart import select, when
    from kerasrestart.restart.initializer_names import CONTROLS
    from kerasrestart.restart.reset import Reset
    from kerasrestart.scoring.scoring import Scoring

    def of(name: str) -> Any:
        value = values[name]
        if name in ("init", "criterion", "select") and is_reference(value):
            return _STAND_INS[name](value) if load is None else load(name, value)
        return value

    init = of("init")
    control = init if isinstance(init, str) and init in CONTROLS else None
    initializer = {} if control else {"initializer": init}
    reset = ("outgoing", "second_moment", "norms", "compensate_bias", "grace_restarts")
    return {
        "select": _selection(values, of("select"), select),
        "when": _when(values, when),
        "reset": Reset(**initializer, **{name: of(name) for name in reset}),
        "scoring": Scoring(of("criterion"), every=of("score_every"), window=of("score_window")),
        "control": control,
        **{name: of(name) for name in ("layers", "max_restarts", "stop_on_repeat", "seed")},
    }


def _selection(values: Mapping[str, Any], chosen: Any, select: Any) -> Any:
    names = ("fraction", "min_survivors", "cap", "normalize")
    if is_own := not isinstance(chosen, str):
        unused = (None, "none", *(field.default for field in dataclasses.fields(select.Fraction)))
        options = {name: values[name] for name in names if values[name] not in unused}
        known: set[str] = set()
    else:
        rule = getattr(select, _SELECTIONS[chosen])
        options = {name: values[name] for name in names if values[name] not in (None, "none")}
        known = {field.name for field in dataclasses.fields(rule)}
    for name in options.keys() - known:
        raise SettingError(
            f"--{name} is not an option of --select={values['select']}: it must be left out, or "
            f"--select be another. Received: --{name}={values[name]}"
        )
    return chosen if is_own else rule(**options)


def _when(values: Mapping[str, Any], when: Any) -> Any:
    common = ("monitor", "target", "learning_rate_drops", "learning_rate_factor")
    options = {name: values[name] for name in common}
    if values["trigger"] == "epochs":
        return when.EveryEpochs(values["round_epochs"], **options)
    return when.OnPlateau(patience=values["patience"], min_delta=values["min_delta"], **options)


def in_flags(message: str, flags: Mapping[str, str]) -> str:
    """Turns a message about arguments of the library into one about flags.

    Args:
        message: The message, such as "initializer='zeros' is ...".
        flags: By argument, the flag.

    Returns:
        The message, such as "--init=zeros is ...".
    """
    for flag, rule in _SELECTIONS.items():
        message = re.sub(rf"\bselect={rule}\([^)]*\)", f"--select={flag}", message)
        message = re.sub(rf"(?<!=)\b{rule}\b", f"--select={flag}", message)
    message = re.sub(
        r"(?<!-)\b([a-z_]+)=('?)([^\s,;'()]*)\2",
        lambda match: f"--{flags.get(match[1], match[1])}={match[3]}",
        message,
    )
    first, space, rest = message.partition(" ")
    return f"--{flags[first]}{space}{rest}" if first in flags else message
