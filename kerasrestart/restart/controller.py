"""Restarts in a training loop without `fit`."""

from __future__ import annotations

import dataclasses
import functools
import reprlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrestart.network.arguments import check, check_whole
from kerasrestart.network.traced_graph import check_model
from kerasrestart.restart.apply import apply_restart
from kerasrestart.restart.arguments import explain_parts
from kerasrestart.restart.every_steps import EverySteps, StepState
from kerasrestart.restart.optimizers import optimizers_of
from kerasrestart.restart.plan import RestartPlan
from kerasrestart.restart.prepare import prepare
from kerasrestart.restart.records import RestartEvent
from kerasrestart.restart.remedies import Remedy, split_reset
from kerasrestart.restart.reset import Reset
from kerasrestart.restart.select import BelowMean, Fraction, GlobalFraction
from kerasrestart.restart.select_filters import Select
from kerasrestart.restart.step_restarts import StepRestarts
from kerasrestart.scoring import criteria
from kerasrestart.scoring.scorer import Scorer
from kerasrestart.scoring.scoring import Scoring
from kerasrestart.scoring.train_step import batch_size_of

Step = Callable[..., Any]


class RestartController:
    """Restarts filters between the batches of a training loop of your own.

    Example:
    ```python
    optimizer = keras.optimizers.Adam(1e-3)
    controller = kerasrestart.RestartController(
        model, optimizer=optimizer, when=kerasrestart.EverySteps(1000)
    )

    @controller.function  # in place of tf.function
    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return loss

    for x, y in batches:
        train_step(x, y)
        controller.step()
    ```

    The step is written as without restarts. Filters are scored in its backward pass; between
    restarts nothing is read from the device and nothing is traced again. The loss is taken as a
    mean over the batch: if it is not, all scores have one common factor, which no selection depends
    on.

    Args:
        model: A built model, compiled or not.
        optimizer: The Keras optimizer that trains it, or several. Defaults to None: the model's
            own, and all that it or its layers keep in attributes.
        when: An `EverySteps`.
        select: As in `PartialRestart`. Defaults to None: `Fraction(0.1)`, or the lowest by
            `EverySteps(replacement_rate=)`.
        reset: As in `PartialRestart`. Defaults to None: `Reset()`.
        control: As in `PartialRestart`. Defaults to None.
        criterion: As in `PartialRestart`. Defaults to `"taylor"`.
        layers: As in `PartialRestart`. Defaults to None: all convolutions.
        max_restarts: Largest number of restarts. Defaults to None: no limit.
        seed: As in `PartialRestart`. Defaults to 0.

    Attributes:
        events: The restarts, one `RestartEvent` each; their `epoch` is 0.
        scorer: The `Scorer`.
        finished: Why there are no more restarts; None while there may be.

    Warnings name layers that are left out of a restart, such as those that were frozen meanwhile,
    and layers that the step does not train, which have no scores.

    Raises:
        ValueError, TypeError: As `PartialRestart`, and as at the start of `fit`.
    """

    @explain_parts(
        *(Fraction, BelowMean, GlobalFraction, EverySteps, Reset, Scoring),
        refused=("drop_epochs",),  # restarts between batches drop no filters
    )
    def __init__(
        self,
        model: keras.Model,
        *,
        when: EverySteps,
        optimizer: Any = None,
        select: Select | None = None,
        reset: Reset | Remedy | Callable[[keras.Model], None] | None = None,
        control: str | None = None,
        criterion: str | criteria.Criterion | criteria.Saliency | Scoring = "taylor",
        layers: str | Sequence[str] | None = None,
        max_restarts: int | None = None,
        seed: int = 0,
    ):
        check_model(model)
        check("when", when, isinstance(when, EverySteps), "an EverySteps")
        part, remedy = split_reset(Reset() if reset is None else reset)
        self._plan = RestartPlan(
            select=Fraction() if select is None else select,
            when=when,
            reset=part,
            remedy=remedy,
            scoring=criterion if isinstance(criterion, Scoring) else Scoring(criterion),
            control=control,
            layers=layers,
            max_restarts=max_restarts,
            seed=seed,
        )
        self._model = model
        found = optimizers_of(model, optimizer)
        if not found:
            raise ValueError(
                f"optimizer must be that of the loop, as model {model.name!r} has none. Received: "
                "None"
            )
        self._optimizers = found
        scorer, _ = prepare(model, self._plan, optimizer=found)
        self._steps = StepRestarts(self._plan, scorer, StepState())
        self._scored_next = self._steps.scores_next
        self.events: list[RestartEvent] = []
        self.finished: str | None = None

    @property
    def scorer(self) -> Scorer:
        """The scorer; its `result` are the running scores."""
        return self._steps.scorer

    @property
    def scores(self) -> dict[str, np.ndarray]:
        """The running scores, read from the device: by layer, float32 `[filters]`."""
        return self.scorer.result(draw=len(self.events))

    def function(self, step: Step, **options: Any) -> Step:
        """Compiles a training step that is scored, in place of `tf.function`.

        With `Scoring(every=...)` or `Scoring(window=...)` it is compiled twice, and the batches
        that are not scored run the step as it is.

        Args:
            step: A Python function that trains on one batch. The first array among its arguments
                has an example in each row.
            **options: Of `tf.function`, such as `jit_compile`.

        Returns:
            A function with the same arguments and result.
        """
        _check_python(step)
        scored = tf.function(self.scored(step), **options)
        plain = tf.function(step, **options)

        @functools.wraps(step)
        def run(*args: Any, **kwargs: Any) -> Any:
            return (scored if self._scores_batch else plain)(*args, **kwargs)

        return run

    def scored(self, step: Step) -> Step:
        """Makes a training step score its batch, without compiling it.

        For loops that compile a larger part than a step, or run it under a strategy:

        ```python
        controller = kerasrestart.RestartController(model, when=kerasrestart.EverySteps(1000))

        def step(x, y):
            with tf.GradientTape() as tape:
                loss = loss_fn(y, model(x, training=True))
            gradients = tape.gradient(loss, model.trainable_variables)
            model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))

        scored, strategy = controller.scored(step), tf.distribute.get_strategy()
        train_step = tf.function(lambda x, y: strategy.run(scored, (x, y)))
        train_step(x, y)
        controller.step()
        ```

        Args:
            step: As in `function`.

        Returns:
            A function with the same arguments and result; it must run, or be traced, in Python.
        """
        _check_python(step)

        @functools.wraps(step)
        def run(*args: Any, **kwargs: Any) -> Any:
            # A step has one loss scale: that of its first optimizer. The step may change it.
            loss_scale = self._optimizers[0].scale_loss(1.0)
            record = self.scorer.new_record()
            with record.listening(hears_updates=True):
                result = step(*args, **kwargs)
            size = tf.cast(batch_size_of((args, kwargs)), tf.float32)
            self.scorer.add_record(
                record,
                batch_size=size,
                loss_to_example_scale=size / loss_scale,
                skip_if_not_finite=any(
                    isinstance(one, keras.optimizers.LossScaleOptimizer) for one in self._optimizers
                ),
            )
            return result

        return run

    @property
    def _scores_batch(self) -> bool:
        on_turn = self._steps.state.step % self._plan.scoring.every == 0
        return self._scored_next and on_turn and self.scorer.needs_step

    def step(self, steps: int = 1) -> RestartEvent | None:
        """Counts a batch that was trained on, and restarts filters where it is time.

        Args:
            steps: How many batches the last call trained on. Defaults to 1.

        Returns:
            The restart; None where there was none.

        Raises:
            ValueError: `select` fails, or no layer can be scored; or the step was not made by
                `function` or `scored`.
        """
        check_whole("steps", steps, 1)
        if self._scores_batch and not self.scorer.was_traced:
            raise ValueError(
                "No batch was scored. The training step must be one from controller.function or "
                "controller.scored. Received: a step that this controller has not made"
            )
        self._steps.advance(steps)
        event = None
        if self.finished is None:
            event = self._restart()
        self._scored_next = self.finished is None and self._steps.scores_next
        return event

    def _restart(self) -> RestartEvent | None:
        event = self._steps.next_restart(self.events, epoch=0)
        self.finished = self._steps.finished
        if event is None:
            return None
        found, means = self.scorer.filter_layers, self.scorer.reader_input_means()
        left_out = apply_restart(
            self._model, self._plan, found, event, means, optimizer=self._optimizers
        )
        for name, why in self.scorer.left_out.items():
            warnings.warn(f"'{name}' is not scored: {why}.", stacklevel=3)
        for name, why in left_out.items():
            warnings.warn(f"'{name}' is not restarted: {why}.", stacklevel=3)
        self._steps.restarted(event)
        self.events.append(event)
        return event

    def get_state(self) -> dict[str, Any]:
        """Returns all that changes in the loop, except the model and its optimizer.

        Returns:
            Plain data that can be written as JSON. It grows with the number of restarts.
        """
        return {
            "steps": self._steps.save().to_dict(),
            "events": [dataclasses.asdict(event) for event in self.events],
            "finished": self.finished,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues from the state of another loop.

        Args:
            state: What `get_state` returned, after as many batches as the model has been trained
                on. The arguments of the controller must be the same.

        Raises:
            ValueError: `state` is something else.
        """
        try:
            events = [RestartEvent.from_dict(event) for event in state["events"]]
            finished, steps = state["finished"], StepState.from_dict(state["steps"])
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ValueError(
                f"state must be what get_state returned. Received: {reprlib.repr(state)}"
            ) from error
        self.events, self.finished = events, finished
        self._steps = StepRestarts(self._plan, self.scorer, steps)
        self._scored_next = self.finished is None and self._steps.scores_next


def _check_python(step: Any) -> None:
    check("step", step, callable(step), "a Python function that trains on a batch")
    if hasattr(step, "get_concrete_function"):
        raise ValueError(
            "step must be a Python function, which controller.function compiles: a compiled step "
            "cannot be scored. Received: a tf.function"
        )
