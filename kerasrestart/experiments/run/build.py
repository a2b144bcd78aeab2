"""Builds the objects of a run from its settings: model, optimizer, callback, regime."""

from __future__ import annotations

from typing import Any

import keras

from kerasrestart.experiments import data
from kerasrestart.experiments.combinations import restart_plan_arguments
from kerasrestart.experiments.data.class_subsets import ClassSubsets
from kerasrestart.experiments.data.regimes import Regime, TaskSequence, WarmStart
from kerasrestart.experiments.models.alexnet_weights import LoadedWeights, load_alexnet_weights
from kerasrestart.experiments.models.networks import NETWORKS
from kerasrestart.experiments.run.initial_weights import regularize_to_initial_weights
from kerasrestart.experiments.run.layer_rates import with_two_rates
from kerasrestart.experiments.run.matched_counts import MatchedCounts
from kerasrestart.experiments.run.own_code import load_object
from kerasrestart.experiments.run.own_network import build_own_network, ends_in_softmax
from kerasrestart.experiments.run.strategies import synchronize_norms
from kerasrestart.experiments.settings import RunSettings
from kerasrestart.restart.callback import PartialRestart


def build_model(
    settings: RunSettings, images: data.ImageData
) -> tuple[keras.Model, LoadedWeights | None]:
    """Builds and compiles the model that the settings name, for these images.

    Returns:
        The model, and its weights that were loaded from a file; None if there are none.

    Raises:
        SettingError: The function that `model` names fails, or makes another kind of model.
    """
    height, width, channels = images.train.images.shape[1:]
    side = settings.image_size
    shape, classes = (side or height, side or width, channels), len(images.classes)
    if settings.model in NETWORKS:
        own: dict[str, Any] = {} if settings.norm is None else {"norm": settings.norm}
        if settings.width != 1:
            own["width"] = settings.width
        build = NETWORKS[settings.model]
        model, from_logits = build(shape, classes, activation=settings.activation, **own), True
    else:
        model = build_own_network(settings.model, shape, classes)
        from_logits = not ends_in_softmax(model)
    optimizer, weights = _optimizer(settings), None
    if settings.weights is not None:
        weights = load_alexnet_weights(model, settings.weights)
        if settings.freeze_features:
            for layer in model.layers:
                layer.trainable = not isinstance(layer, keras.layers.Conv2D)
        if (factor := settings.pretrained_learning_rate_factor) != 1:
            loaded = [v for name in weights.layers for v in model.get_layer(name).variables]
            optimizer = with_two_rates(optimizer, loaded, factor)
    if settings.l2_init:
        regularize_to_initial_weights(model, settings.l2_init)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits),
        metrics=["accuracy"],
        jit_compile="auto" if settings.jit_compile is None else settings.jit_compile,
    )
    if settings.strategy != "none":
        synchronize_norms(model)
    return model, weights


def _optimizer(settings: RunSettings) -> keras.optimizers.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay or None
    optimizers = keras.optimizers
    if settings.optimizer == "sgd":
        return optimizers.SGD(rate, momentum=settings.momentum, weight_decay=decay)
    if settings.optimizer == "rmsprop":
        return optimizers.RMSprop(
            rate, momentum=settings.momentum, epsilon=settings.epsilon, weight_decay=decay
        )
    adam = {"beta_2": settings.beta_2, "epsilon": settings.epsilon}
    if settings.optimizer == "adamw":
        return optimizers.AdamW(rate, weight_decay=settings.weight_decay, **adam)  # takes no None
    return optimizers.Adam(rate, weight_decay=decay, **adam)


def restart_callback(settings: RunSettings) -> PartialRestart:
    """Makes the callback that the settings describe.

    Raises:
        ValueError: `matched_run` is not the folder of a run that has ended and restarted filters.
    """
    arguments = restart_plan_arguments(settings.to_dict(), load_object)
    matched = None
    if settings.matched_run is not None:
        arguments["select"] = matched = MatchedCounts.of_run(settings.matched_run)
    restart = PartialRestart(criterion=arguments.pop("scoring"), **arguments)
    restart.messages.gives_hints = False  # they name arguments, which here are flags
    if matched is not None:
        matched.restart = restart
    return restart


def regime_of(settings: RunSettings, images: data.ImageData) -> Regime | None:
    """The data of each epoch; None if each epoch has all images unchanged."""
    if settings.tasks == "none" and settings.warm_start_fraction is None:
        return None
    common: dict[str, Any] = {
        "split": images.train,
        "classes": len(images.classes),
        "epochs": settings.round_epochs,
        "seed": settings.seed,
    }
    if settings.tasks == "class_subsets":
        return ClassSubsets(**common)
    if settings.tasks != "none":
        return TaskSequence(kind=settings.tasks, **common)
    return WarmStart(fraction=settings.warm_start_fraction, **common)
