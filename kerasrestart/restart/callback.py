"""The callback that restarts useless filters while a model trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from kerasrestart.network.arguments import check
from kerasrestart.restart.arguments import PARTS, explain_parts
from kerasrestart.restart.every_steps import EverySteps
from kerasrestart.restart.life_cycle import RestartLifeCycle
from kerasrestart.restart.observer import RestartObserver, check_observer
from kerasrestart.restart.plan import RestartPlan
from kerasrestart.restart.prepare import prepare
from kerasrestart.restart.presets import preset_arguments
from kerasrestart.restart.remedies import Remedy, split_reset
from kerasrestart.restart.reset import Reset
from kerasrestart.restart.select import Fraction
from kerasrestart.restart.select_filters import Select
from kerasrestart.restart.summary import summary_table
from kerasrestart.restart.when import OnPlateau, When
from kerasrestart.scoring import criteria
from kerasrestart.scoring.scoring import Scoring


class PartialRestart(RestartLifeCycle):
    """Re-initialises the least useful filters each time training has reached a plateau.

    Example:
    ```python
    restart = kerasrestart.PartialRestart("uniform", 0.1, monitor="val_loss", patience=3)
    model.fit(x, y, validation_split=0.1, epochs=60, callbacks=[restart])
    print(restart.summary())
    ```

    The same, and more, in parts:
    ```python
    restart = kerasrestart.PartialRestart(
        select=kerasrestart.BelowMean(0.1, cap=0.5),
        when=kerasrestart.EveryEpochs(15),
        reset=kerasrestart.Reset("he_uniform", outgoing="zero"),
    )
    ```

    All filters are scored in the backward pass that training makes anyway. At the end of a round
    of training the filters of lowest score are selected; the next epoch begins by re-initialising
    them and resetting the learning rate to its initial value, and a new round starts. The first
    round is the baseline. Restarts end after `max_restarts`, when the same filters are selected
    twice, or at the target; the next plateau ends training.

    What other callbacks save of an epoch is the model that the epoch's metrics describe, whatever
    their order. After `fit` the model is a plain Keras model.

    Source: Han and Zhang, "Partial Restart of Neural Network", algorithm 1.

    Args:
        initializer: What draws the new weights: the short form of `reset=Reset(initializer)`.
            Defaults to `"uniform"`.
        fraction: Fraction of each layer's filters that a restart selects: the short form of
            `select=Fraction(fraction)`. Defaults to 0.1.
        monitor: Metric whose plateau ends a round, and
        patience: epochs without improvement that make a plateau: the short form of
            `when=OnPlateau(monitor, patience)`. Default to `"val_loss"` and 5.
        max_restarts: Largest number of restarts; None: no limit. Defaults to `"auto"`: 3, and with
            `EverySteps` no limit.
        seed: Seed of the new weights, and of a criterion that draws scores. Defaults to 0.
        select: Which filters a restart selects: `Fraction`, `BelowMean`, `GlobalFraction`, or a
            function that takes the scores by layer, float32 `[filters]`, and returns
            `{layer: indices}`. If it has an argument `exclude`, it also gets the filters that a
            restart leaves out now, `{layer: indices}`; else these are removed from its result.
            Defaults to None: the short form.
        when: When a round ends: `OnPlateau`, `EveryEpochs`, or an object of a class of your own,
            see `kerasrestart.When`. Or `EverySteps`, which restarts filters between batches.
            Defaults to None: the short form.
        reset: How filters are restarted: `Reset`. Or what is done instead of a restart of filters:
            `ResetLayer`, `ResetModel`, `ShrinkAndPerturb`, `ResetOptimizer`, or a function that
            changes the model it gets; then no filters are selected, and the same remedy is applied
            after each round; the model need not have any. Defaults to None: the short form.
        control: `"none"`: only the learning rate is reset; `"slots"`: the optimizer state of the
            selected filters is reset too, and their weights stay. The same filters twice then end
            nothing. Defaults to None: no control, filters are re-initialised.
        criterion: What filters are scored by: a name or function, see
            `kerasrestart.scoring.criteria.get`, or `Scoring`, to score fewer batches or epochs.
            Defaults to `"taylor"`.
        layers: Which layers are scored and restarted: their names, or a regular expression that
            matches whole names; `".*"` includes dense layers. Defaults to None: all convolutions.
            `kerasrestart.describe(model)` lists them.
        stop_on_repeat: Whether restarts end when the same filters are selected as at the last
            restart, or none. With False, a restart that selects none only resets the learning rate.
            To compare with a control, pass False and `when=EveryEpochs(...)` to both: then both
            train equally long. Not used with `EverySteps`. Defaults to True.
        observers: `RestartObserver`s, such as `RestartTensorBoard` and `RestartBackup`. Defaults to
            none.

    Attributes:
        events: The restarts, one `RestartEvent` each.
        rounds: The rounds of training, one `Round` each; the first is the baseline.
        state: A `RestartState`: all that changes during training.
        scores: Scores of the last epoch that was scored: by layer, float32 `[filters]`.

    Raises:
        ValueError: An argument is out of range, or a short form is given beside the part that
            replaces it; at the start of `fit`: the model has no filters or cannot be traced,
            `select` cannot select from it, or the optimizer's slots are not known; at the end of
            the first epoch: `monitor` is not in the logs.
        TypeError: An argument belongs to a part.
    """

    @explain_parts(*PARTS, of_fit=("verbose",))
    def __init__(
        self,
        initializer: Any = "uniform",
        fraction: float = 0.1,
        *,
        monitor: str = "val_loss",
        patience: int = 5,
        max_restarts: int | str | None = "auto",
        seed: int = 0,
        select: Select | None = None,
        when: When | None = None,
        reset: Reset | Remedy | Callable[[keras.Model], None] | None = None,
        control: str | None = None,
        criterion: str | criteria.Criterion | criteria.Saliency | Scoring = "taylor",
        layers: str | Sequence[str] | None = None,
        stop_on_repeat: bool = True,
        observers: Sequence[RestartObserver] = (),
    ):
        part, remedy = split_reset(Reset(initializer) if reset is None else reset)
        plan = RestartPlan(
            select=Fraction(fraction) if select is None else select,
            when=OnPlateau(monitor, patience) if when is None else when,
            reset=part,
            remedy=remedy,
            scoring=criterion if isinstance(criterion, Scoring) else Scoring(criterion),
            control=control,
            layers=layers,
            max_restarts=_limit(max_restarts, when),
            stop_on_repeat=stop_on_repeat,
            seed=seed,
        )
        is_list = isinstance(observers, Iterable) and not isinstance(observers, str)
        check("observers", observers, is_list, "a list of RestartObservers")
        for observer in observers:
            check_observer(observer)
        super().__init__(plan, observers)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> PartialRestart:
        """Returns a callback with the settings of a published method.

        Example:
        ```python
        restart = kerasrestart.PartialRestart.preset("redo")
        restart = kerasrestart.PartialRestart.preset(
            "continual_backprop", when=kerasrestart.EverySteps(1, replacement_rate=1e-5)
        )
        ```

        Args:
            name: `"han_zhang"`: the defaults, with a lower learning rate in each round; `"redo"`:
                dormant units (Sokar et al., ICML 2023); `"continual_backprop"`: Dohare et al.,
                Nature 2024; `"repr"`: filters are dropped for some epochs first (Prakash et al.,
                CVPR 2019). `kerasrestart.restart.presets` says what each does and where it differs
                from its source.
            **overrides: Arguments of `PartialRestart` that replace the preset's.

        Raises:
            ValueError, TypeError: The name is not known, or as `PartialRestart`.
        """
        return cls(**preset_arguments(name, overrides))

    def __repr__(self):
        parts = dict(vars(self.plan))
        parts["criterion"], remedy = parts.pop("scoring"), parts.pop("remedy")
        if remedy is not None:
            parts["reset"] = remedy
        return f"PartialRestart({', '.join(f'{name}={part!r}' for name, part in parts.items())})"

    def summary(self) -> str:
        """The restarts as a plain-text table: a row for each layer of each restart."""
        return summary_table(self.events)

    def check(self, model: keras.Model) -> None:
        """Checks that a model can be restarted as the arguments say; `fit` does so at its start.

        Args:
            model: A compiled model.

        Raises:
            ValueError, TypeError: As at the start of `fit`.
        """
        prepare(model, self.plan)


def _limit(max_restarts: Any, when: When | None) -> Any:
    if isinstance(max_restarts, str) and max_restarts == "auto":
        return None if isinstance(when, EverySteps) else 3
    return max_restarts
