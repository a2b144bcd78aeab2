"""All that decides what a run computes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any

from absl import flags

from kerasrestart.restart.combinations import check_combination
from kerasrestart.restart.names import REVERSED
from kerasrestart.restart.selection import DEFAULT_FRACTION, Selection


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The settings of one run; each is the flag of the same name, described there."""

    model: str
    dataset: str
    data_dir: str | None
    train_examples: int | None
    label_noise: float
    warm_start_fraction: float | None
    tasks: str
    augment: bool
    image_size: int | None
    weights: str | None
    freeze_features: bool
    pretrained_learning_rate_factor: float
    init: str
    criterion: str
    fraction: float | None
    threshold: float | None
    scope: str
    cap: float | None
    normalize: str
    layers: str | None
    score_every: int
    score_window: int | None
    min_survivors: int
    outgoing: str
    grace_restarts: int
    second_moment: str
    reset_norm: bool
    compensate_bias: bool
    trigger: str
    monitor: str
    patience: int
    min_delta: float
    max_restarts: int
    stop_on_repeat: bool
    round_epochs: int
    target: float | None
    epochs: int
    learning_rate_drops: int
    learning_rate_factor: float
    batch_size: int
    optimizer: str
    learning_rate: float
    momentum: float
    weight_decay: float
    seed: int
    mixed_precision: bool
    jit_compile: bool | None
    strategy: str
    baseline: str | None
    on_nan: str

    @classmethod
    def from_flags(cls, values: flags.FlagValues) -> RunSettings:
        """Reads the settings off parsed flags.

        Raises:
            absl.flags.IllegalFlagValueError: Two of them do not go together.
        """
        chosen = {field.name: values[field.name].value for field in dataclasses.fields(cls)}
        if chosen["fraction"] is None and chosen["threshold"] is None:
            chosen["fraction"] = DEFAULT_FRACTION  # so that a record tells what was done
        settings = cls(**chosen)
        settings._check_combination()
        return settings

    def _check_combination(self) -> None:
        try:
            selection = Selection(
                self.fraction,
                self.threshold,
                self.scope,
                self.cap,
                self.normalize,
                min_survivors=self.min_survivors,
            )
            check_combination(
                selection,
                initializer=self.init,
                reverses=self.criterion.startswith(REVERSED),
                outgoing=self.outgoing,
                compensate_bias=self.compensate_bias,
            )
        except ValueError as error:
            raise flags.IllegalFlagValueError(_in_flags(str(error))) from error

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON knows them."""
        return dataclasses.asdict(self)

    def differences(self, others: Mapping[str, Any], free: Collection[str] = ()) -> list[str]:
        """By which flags these settings differ from others.

        Args:
            others: Settings as `to_dict` gave them; those that an older version did not know count
                as their defaults.
            free: Names that may differ. Defaults to none.

        Returns:
            A few words for each flag: what it was and what it is.
        """
        from kerasrestart.experiments.run_flags import parse_settings  # which needs this module

        usual = parse_settings([]).to_dict()
        return [
            f"--{name} was {was!r}, is {value!r}"
            for name, value in self.to_dict().items()
            if name not in free and (was := others.get(name, usual[name])) != value
        ]


IGNORED_ON_RESUME = frozenset(("baseline", "data_dir", "on_nan"))
"""Settings in which a run may differ from what it goes on with: a folder may be moved, and what is
in it is compared by itself; what is done about a diverged loss has changed nothing so far."""


def as_flag(name: str, value: Any) -> str:
    """A flag as a command line has it."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    return f"--{name}={value}"


def _in_flags(message: str) -> str:
    """A message about arguments of `PartialRestart` in terms of flags."""
    message = message.replace("initializer=", "init=")
    names = "|".join(RunSettings.__dataclass_fields__)
    return re.sub(rf"\b({names})=", r"--\1=", message)


def is_plain_name(value: str) -> bool:
    """Whether a name cannot lead out of the folder that it is to lie in."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.=+-]*", value) is not None
