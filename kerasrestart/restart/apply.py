"""Applies a restart to a model, as a plan says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kerasrestart.network.filter_layers import FilterLayers
from kerasrestart.network.own_functions import naming
from kerasrestart.restart import surgery
from kerasrestart.restart.initializers import derive_seed
from kerasrestart.restart.plan import RestartPlan
from kerasrestart.restart.records import RestartEvent
from kerasrestart.restart.remedies import Remedy


def apply_restart(
    model: keras.Model,
    plan: RestartPlan,
    found: FilterLayers,
    event: RestartEvent,
    reader_input_means: Mapping[str, np.ndarray],
    *,
    optimizer: Any = None,
) -> dict[str, str]:
    """Restarts filters, or applies the plan's remedy; changes nothing where the plan is a control.

    Args:
        model: The model.
        plan: The plan.
        found: The filter layers of the model.
        event: The restart. Layers that are left out are removed from it.
        reader_input_means: Mean inputs of the layers that read the filters; not used without
            `compensate_bias`.
        optimizer: As in `restart_filters`. Defaults to None.

    Returns:
        By layer, why it is left out: it may have been frozen since training began.
    """
    reset = plan.reset
    left_out: dict[str, str] = {}
    if plan.control != "none":
        left_out = surgery.obstacles(model, found, event.layers, outgoing=reset.outgoing)
    for name in left_out:
        del event.layers[name]
    chosen = {name: layer.filters for name, layer in event.layers.items()}
    seed = derive_seed(plan.seed, event.restart)
    if isinstance(plan.remedy, Remedy):
        plan.remedy.apply(model, seed, optimizer)
    elif plan.remedy is not None:
        with naming("reset", plan.remedy):
            plan.remedy(model)
    elif plan.control is None:
        surgery.restart_filters(
            model,
            chosen,
            initializer=reset.initializer,
            outgoing=reset.outgoing,
            second_moment=reset.second_moment,
            norms=reset.norms,
            reader_input_means=reader_input_means if reset.compensate_bias else None,
            optimizer=optimizer,
            seed=seed,
            found=found,
        )
    elif plan.control == "slots":
        surgery.reset_optimizer_state(
            model,
            chosen,
            second_moment=reset.second_moment,
            norms=reset.norms,
            optimizer=optimizer,
            found=found,
        )
    return left_out
