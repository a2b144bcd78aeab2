"""The axes of a study as they are typed: networks, arms, seeds and pairs of arms."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kerasrestart.experiments.references import is_reference, short_name
from kerasrestart.experiments.setting import SettingError, did_you_mean, parse_words
from kerasrestart.experiments.settings import REMEDIES, SETTINGS, is_plain_name
from kerasrestart.restart.initializer_names import CONTROLS, INITIALIZERS
from kerasrestart.scoring.criterion_names import REVERSED

MAX_RUNS = 10_000
"""Largest number of runs of a study, not counting baselines."""

SET_BY_THE_STUDY = {name: s.in_study for name, s in SETTINGS.items() if s.in_study}
"""Settings that a study sets for each run, and what is typed instead."""

Values = dict[str, Any]


class PlanError(SettingError):
    """A study that cannot be run as it is described."""


def of_size(networks: Sequence[str], size: str | None) -> list[str]:
    """The networks of one size of a study, such as one for a GPU and one for two cores.

    Example:
    ```python
    networks = ["a@small:model=alexnet,image_size=64", "a@paper:model=alexnet,image_size=224"]
    of_size(networks, "small")  # ["a:model=alexnet,image_size=64"]
    ```

    Args:
        networks: As `network_settings` takes them; with `@SIZE` after the name, for one size only.
        size: The size, or None: the study has no sizes.

    Returns:
        Those without a size and those of this size, without `@SIZE`.

    Raises:
        PlanError: No network has this size, or networks have sizes and `size` is None.
    """
    chosen, sizes = [], []
    for network in networks:
        if is_own_network(network):
            chosen.append(network)
            continue
        label, colon, settings = network.partition(":")
        name, at, of = label.partition("@")
        if at:
            sizes.append(of)
        if not at or of == size:
            chosen.append(f"{name}{colon}{settings}")
    if sizes and size is None:
        known = ", ".join(dict.fromkeys(sizes))
        raise PlanError(f"--size must be one of {known}: the networks have sizes. Received: none")
    if size is not None and size not in sizes:
        known = ", ".join(dict.fromkeys(sizes)) or "left out: no --network=NAME@SIZE:... is given"
        raise PlanError(
            f"--size must be {f'one of {known}' if sizes else known}. "
            f"Received: {size!r}{did_you_mean(size, sizes)}"
        )
    return chosen


def is_own_network(network: str) -> bool:
    """Whether `--network` is a reference to a function, and not `NAME:flag=value`.

    The function's name alone follows the colon. Where that is also a flag that takes no value, as
    in `mine:augment`, it is the flag.
    """
    flag = network.rpartition(":")[2]
    is_flag = any(
        setting.type is bool and flag in (name, f"no{name}") for name, setting in SETTINGS.items()
    )
    return is_reference(network) and not is_flag


def network_settings(network: str) -> tuple[str, Values]:
    """The label of a network, and the settings that make it.

    Args:
        network: The name of a model; `MODULE:FUNCTION`, which has the function's name as its label;
            or `NAME:flag=value,flag=value`.

    Raises:
        PlanError: It is neither, or sets what the study sets.
    """
    if ":" not in network:
        return network, {"model": network}
    if is_own_network(network):
        return short_name(network), {"model": network}
    label, values = named_settings(network)
    others = {name: by for name, by in SET_BY_THE_STUDY.items() if name != "model"}
    refuse("--network={label}:{name}", values, others, label)
    return label, values


def arm_settings(arm: str, criterion: str = "taylor") -> tuple[str, Values]:
    """The label of an arm, and the settings that make it.

    Args:
        arm: An initializer or a control; `random` (random filters) or `reversed` (the most useful
            filters), with the study's own `--init`; a remedy, without a restart of filters; or
            `NAME:flag=value,flag=value`.
        criterion: What `reversed` reverses. Defaults to `"taylor"`.

    Raises:
        PlanError: It is none of these, or sets what the study sets.
    """
    if ":" in arm:
        label, values = named_settings(arm)
        refuse("--arm={label}:{name}", values, SET_BY_THE_STUDY, label)
        return label, values
    if arm == "random":
        return arm, {"criterion": "random"}
    if arm == "reversed":
        return arm, {"criterion": f"{REVERSED}{criterion}"}
    remedies = [name for name in REMEDIES if name != "none"]
    if arm in remedies:
        return arm, {"init": "none", "remedy": arm}
    known = (*INITIALIZERS, *CONTROLS, "random", "reversed", *remedies)
    if arm in known:
        return arm, {"init": arm}
    raise PlanError(
        f"--arms must be names of {', '.join(known)}; or --arm=NAME:flag=value,flag=value. "
        f"Received: {arm!r}{did_you_mean(arm, known)}"
    )


def named_settings(text: str) -> tuple[str, Values]:
    """Reads `NAME:flag=value,flag=value`.

    Returns:
        The name, and the settings.

    Raises:
        PlanError: The text has another form, or a flag or a value is wrong.
    """
    label, _, rest = text.partition(":")
    if not re.fullmatch(r"[A-Za-z0-9_.+]+", label):
        raise PlanError(f"A name must be of letters, digits and _.+. Received: {label!r}")
    try:
        return label, parse_words([part for part in rest.split(",") if part], SETTINGS)
    except SettingError as error:
        raise PlanError(f"In '{text}': {error}") from error


def parse_seeds(text: str, flag: str = "seeds") -> list[int]:
    """Reads seeds such as `0-9` or `0,1,5-7`.

    Args:
        text: The seeds.
        flag: The flag that an error names. Defaults to "seeds".

    Raises:
        PlanError: The text has another form, a seed comes twice, or there are more than `MAX_RUNS`.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,10})(?:-([0-9]{1,10}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise PlanError(f"--{flag} must be such as 0-9 or 0,1,5-7. Received: {text!r}")
        if last - first >= MAX_RUNS - len(seeds):
            raise PlanError(f"--{flag} must be at most {MAX_RUNS} seeds. Received: {text!r}")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise PlanError(f"--{flag} must be different from each other. Received: {text!r}")
    return seeds


def parse_pair(text: str) -> tuple[str, str]:
    """Reads two arms, such as `below_mean:random`.

    Raises:
        PlanError: The text has another form.
    """
    one, _, other = text.partition(":")
    if not (is_plain_name(one) and is_plain_name(other)) or one == other:
        raise PlanError(f"--pair must be two arms, ARM:OTHER. Received: {text!r}")
    return one, other


def refuse(form: str, names: Collection[str], set_by: Mapping[str, str], label: str = "") -> None:
    """Refuses settings that the study sets itself.

    Args:
        form: How the setting was typed, with `{name}` and `{label}`.
        names: The settings that were given.
        set_by: By name, what is typed instead.
        label: The name of the network or arm. Defaults to "".

    Raises:
        PlanError: One of `names` is in `set_by`.
    """
    for name in names:
        if name in set_by:
            raise PlanError(
                f"{form.format(name=name, label=label)} cannot be set in a study: pass "
                f"{set_by[name]}"
            )
