"""What settings make: models, optimizers and the callback."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from kerasrestart.experiments import data
from kerasrestart.experiments.data.class_subsets import ClassSubsets
from kerasrestart.experiments.run.build import build_model, regime_of, restart_callback
from kerasrestart.experiments.settings import SETTINGS, RunSettings
from kerasrestart.restart.reset import Reset
from kerasrestart.restart.select import BelowMean, Fraction, GlobalFraction
from kerasrestart.restart.when import EveryEpochs, OnPlateau
from kerasrestart.scoring.scoring import Scoring
from tests.experiments.records.sample_record import sample_record


@pytest.fixture(scope="module")
def images():
    return data.load("shapes", shapes_examples=100, train_examples=40)


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("name", SETTINGS["optimizer"].choices)
def test_every_optimizer_is_made_with_its_rate_and_decay(name, decay, images):
    settings = RunSettings(optimizer=name, weight_decay=decay, learning_rate=0.25)
    optimizer = build_model(settings, images)[0].optimizer
    assert type(optimizer).__name__.lower() == name
    assert isinstance(optimizer, keras.optimizers.Optimizer)
    assert float(optimizer.learning_rate) == 0.25
    assert (optimizer.weight_decay or 0) == decay


def test_settings_reach_the_optimizer_the_network_and_the_regime(images):
    settings = RunSettings(
        optimizer="adam",
        beta_2=0.9,
        epsilon=1e-3,
        activation="leaky_relu",
        norm="layer",
        l2_init=2.0,
        width=0.5,
    )
    model = build_model(settings, images)[0]
    assert (model.optimizer.beta_2, model.optimizer.epsilon) == (0.9, 1e-3)
    assert model.get_layer("conv1").filters == 16
    assert model.get_layer("conv1_leaky_relu").activation is keras.activations.leaky_relu
    assert isinstance(model.get_layer("dense1_norm"), keras.layers.LayerNormalization)
    assert len(model.losses) == len(model.trainable_variables)
    rmsprop = RunSettings(optimizer="rmsprop", epsilon=1e-3)
    assert build_model(rmsprop, images)[0].optimizer.epsilon == 1e-3
    subsets = {"tasks": "class_subsets", "trigger": "epochs", "monitor": "accuracy"}
    assert isinstance(regime_of(RunSettings(**subsets), images), ClassSubsets)


def test_a_matched_run_sets_the_selection(tmp_path):
    event = {
        **{"restart": 1, "epoch": 1, "reason": "", "initializer": "he", "learning_rate": None},
        **{"layers": {"a": {"filters": [0], "scores": []}}, "metrics_before": {}},
    }
    record = sample_record(settings={"init": "he"}, events=[event])
    (tmp_path / "run.json").write_text(json.dumps(record))
    restart = restart_callback(RunSettings(criterion="random", matched_run=str(tmp_path)))
    chosen = restart.plan.select({"a": np.array([2.0, 1.0])})
    assert {name: filters.tolist() for name, filters in chosen.items()} == {"a": [1]}
    assert restart.plan.select.restart is restart


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {},
            {
                "select": Fraction(0.1),
                "when": OnPlateau("val_loss", patience=5),
                "reset": Reset("uniform"),
                "scoring": Scoring("taylor"),
                "control": None,
            },
        ),
        (
            {"select": "below_mean", "cap": 0.5, "min_survivors": 2, "fraction": 0.3},
            {"select": BelowMean(0.3, cap=0.5, min_survivors=2)},
        ),
        (
            {"select": "global_fraction", "normalize": "l2"},
            {"select": GlobalFraction(0.1, cap=0.5, normalize="l2")},
        ),
        (
            {"trigger": "epochs", "round_epochs": 4, "learning_rate_drops": 1, "monitor": "loss"},
            {"when": EveryEpochs(4, monitor="loss", learning_rate_drops=1)},
        ),
        (
            {"patience": 2, "min_delta": 0.1, "target": 0.5},
            {"when": OnPlateau("val_loss", patience=2, min_delta=0.1, target=0.5)},
        ),
        (
            {
                **{"init": "he", "outgoing": "zero", "norm": "batch", "norms": False},
                "grace_restarts": 2,
            },
            {"reset": Reset("he", outgoing="zero", norms=False, grace_restarts=2)},
        ),
        ({"init": "none"}, {"control": "none"}),
        ({"init": "slots"}, {"control": "slots"}),
        (
            {"criterion": "apoz", "score_every": 4, "score_window": 2},
            {"scoring": Scoring("apoz", every=4, window=2)},
        ),
        (
            {"layers": "conv1", "max_restarts": 7, "stop_on_repeat": False, "seed": 3},
            {"layers": "conv1", "max_restarts": 7, "stop_on_repeat": False, "seed": 3},
        ),
    ],
)
def test_settings_make_the_parts_of_the_callback(settings, expected):
    plan = restart_callback(RunSettings(**settings)).plan
    assert {name: getattr(plan, name) for name in expected} == expected


def test_every_setting_of_a_restart_changes_the_callback():
    """No setting is read, checked and then forgotten."""
    base = {"select": "global_fraction", "outgoing": "zero", "trigger": "epochs", "norm": "batch"}
    base |= {"optimizer": "adam", "learning_rate_drops": 1}
    others = {
        "init": "he",
        "criterion": "apoz",
        "select": "below_mean",
        "normalize": "l2",
        "layers": "conv1",
        "outgoing": "keep",
        "second_moment": "survivors",
        "trigger": "plateau",
        "monitor": "loss",
        "target": 0.5,
        "score_window": 2,
        "cap": 0.3,
    }
    plateau = ("patience", "min_delta")
    for name, setting in SETTINGS.items():
        if setting.group not in ("restart", "schedule") or name == "epochs":
            continue
        settings = RunSettings(**{**base, "trigger": "plateau"} if name in plateau else base)
        value = getattr(settings, name)
        other = others.get(name, not value if isinstance(value, bool) else None)
        if other is None:
            other = value + 1 if isinstance(value, int) else value + 0.1
        changed = dataclasses.replace(settings, **{name: other})
        assert restart_callback(changed).plan != restart_callback(settings).plan, name


def scores_of_a_restart(precision, images):
    """Trains MiniNet for two epochs, with one restart between them."""
    settings = RunSettings(precision=precision, trigger="epochs", round_epochs=1, max_restarts=1)
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(settings.dtype_policy)
    model, _ = build_model(settings, images)
    assert model.get_layer("conv1").compute_dtype == precision.removeprefix("mixed_")
    assert model.get_layer("conv1").kernel.dtype == "float32"
    restart = restart_callback(settings)
    x, y = images.train.images.astype("float32") / 255, images.train.labels
    options = {"validation_split": 0.5, "epochs": 2, "shuffle": False, "verbose": 0}
    model.fit(x, y, callbacks=[restart], **options)
    assert len(restart.events) == 1
    return np.array(restart.events[0].layers["conv3"].scores)


def test_lower_precisions_train_and_score_like_float32(images):
    exact = scores_of_a_restart("float32", images)
    scored = exact > 1e-7
    for precision in ("mixed_bfloat16", "mixed_float16"):
        ratio = scores_of_a_restart(precision, images)[scored] / exact[scored]
        # bfloat16 has 8 bits of mantissa, and a score is a difference of larger terms.
        assert np.median(ratio) == pytest.approx(1, abs=0.1)
