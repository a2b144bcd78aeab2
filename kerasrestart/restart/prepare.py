"""Checks that a model can be restarted as planned, and makes its scorer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import keras

from kerasrestart.network.filter_layers import FilterLayers, find_filter_layers
from kerasrestart.network.optimizers import leaves
from kerasrestart.network.own_training import has_own_step
from kerasrestart.network.text import listed, listed_reasons
from kerasrestart.network.traced_graph import check_model
from kerasrestart.restart import drawing, surgery
from kerasrestart.restart.compensation import check_compensation
from kerasrestart.restart.every_steps import EverySteps
from kerasrestart.restart.learning_rate import learning_rate_of
from kerasrestart.restart.optimizers import check_optimizers, optimizers_of
from kerasrestart.restart.plan import RestartPlan
from kerasrestart.restart.remedies import Remedy
from kerasrestart.restart.slots import build_optimizer, trains
from kerasrestart.scoring.reduction import check_reductions
from kerasrestart.scoring.running_scorer import RunningScorer
from kerasrestart.scoring.scorer import Scorer


def prepare(
    model: keras.Model, plan: RestartPlan, data: Any = None, *, optimizer: Any = None
) -> tuple[Scorer, list[str]]:
    """Makes the scorer of a model, after checking that the model can be restarted as planned.

    A `MultiOptimizer` made by a function is built, as it holds no optimizers before. Any other is
    left to be built by the first step.

    Args:
        model: A compiled model.
        plan: The plan.
        data: Specs of a batch as `train_step` gets it, for a model that does not know its inputs or
            has a step or loss of its own. Defaults to None.
        optimizer: The optimizer of a loop without `fit`, or several; the model need not be
            compiled. Defaults to None: the model's own.

    Returns:
        The scorer, and the names of layers that are left out because of `outgoing`.

    Raises:
        TypeError: The model does not know its inputs, and `data` is None.
        ValueError: The model is not compiled, or has no filters; `select` cannot select from it;
            the optimizer's slots are not known; the learning rate is to be lowered and cannot be
            set; the criterion needs gradients and the losses have no reduction in common; or as
            `restart_filters`.
    """
    check_model(model)
    if optimizer is None and not model.compiled:
        raise ValueError(f"Model '{model.name}' is not compiled: call model.compile first.")
    scorer_of = partial(_scorer, model, plan, data=data, in_loop=optimizer is not None)
    scorer, left_out = scorer_of(plan.layers), []
    if plan.reset.outgoing == "zero":
        obstacles = _obstacles(scorer.filter_layers)
        free = [name for name in scorer.layers if name not in obstacles]
        if not free:
            raise ValueError(
                f"No layer can be restarted with outgoing='zero': {listed_reasons(obstacles)}; "
                "kerasrestart.describe shows all."
            )
        if obstacles:
            scorer, left_out = scorer_of(free), list(obstacles)
    selects = plan.remedy is None and getattr(plan.when, "replacement_rate", None) is None
    check = getattr(plan.select, "check", None) if selects else None
    if check is not None:
        check({name: layer.filters for name, layer in scorer.layers.items()})
    if optimizer is not None:
        check_optimizers(model, optimizer)
    else:
        if scorer.criterion.needs_gradient:
            check_reductions(model)
        if model.optimizer is not None and not leaves(model.optimizer):
            build_optimizer(model)  # a MultiOptimizer made with a function: it has none before
        check_optimizers(model)
        _check_trained(model)
    if plan.when.learning_rate_drops:
        _check_rate(getattr(model, "optimizer", None), plan.when.learning_rate_drops)
    if isinstance(plan.remedy, Remedy):
        plan.remedy.check(model)
    if plan.control is None and plan.remedy is None:
        drawing.check_draws(
            scorer.layers.values(),
            plan.reset.initializer,
            outgoing=plan.reset.outgoing,
            norms=plan.reset.norms,
        )
    if plan.reset.outgoing == "zero":
        for one in optimizers_of(model, optimizer):
            surgery.check_adafactor(one, plan.reset.second_moment)
    if plan.reset.compensate_bias:
        check_compensation(scorer.filter_layers)
    return scorer, left_out


def _check_trained(model: keras.Model) -> None:
    """Raises ValueError where the scored step, traced again, would fail as the old one did not."""
    if has_own_step(model) or model.optimizer is None or not model.optimizer.built:
        return
    unknown = [v.path for v in model.trainable_variables if not trains(model.optimizer, v)]
    if unknown:
        raise ValueError(
            "The optimizer must know all weights that train: compile the model again after layers "
            f"are unfrozen. Received: an optimizer that was built without {listed(unknown)}"
        )


def _check_rate(optimizer: keras.optimizers.Optimizer | None, drops: int) -> None:
    """Raises ValueError where no learning rate can be lowered."""
    if optimizer is not None and learning_rate_of(optimizer) is not None:
        return
    why = "the optimizer was made with a schedule"
    if optimizer is None:
        why = "the model is compiled without an optimizer"
    raise ValueError(
        "learning_rate_drops must be 0, or the optimizer made with a number, so that its learning "
        f"rate can be set; {why}. Received: learning_rate_drops={drops}"
    )


def _scorer(
    model: keras.Model,
    plan: RestartPlan,
    layers: str | Sequence[str] | None,
    *,
    data: Any,
    in_loop: bool,
) -> Scorer:
    # A remedy needs no filters.
    may_be_none = plan.remedy is not None
    options: dict[str, Any] = {
        "seed": plan.seed,
        "found": find_filter_layers(
            model, layers, data=data, may_be_none=may_be_none, in_loop=in_loop
        ),
        "with_reader_input_means": plan.reset.compensate_bias,
    }
    if isinstance(plan.when, EverySteps):
        options["decay"] = plan.when.decay
        return RunningScorer(model, plan.scoring.criterion, **options)
    return Scorer(model, plan.scoring.criterion, **options)


def _obstacles(filter_layers: FilterLayers) -> dict[str, str]:
    """The layers whose outgoing weights cannot be set to zero: by name, why."""
    obstacles = {
        name: filter_layers.channels.outgoing(found.layer).obstacle()
        for name, found in filter_layers.layers.items()
    }
    return {name: obstacle for name, obstacle in obstacles.items() if obstacle}
