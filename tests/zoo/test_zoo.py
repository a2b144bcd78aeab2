"""The callback on the kinds of model that people train."""

import keras
import numpy as np
import pytest

import kerasrestart as kr
from kerasrestart.network import kernels
from tests.zoo import models_page
from tests.zoo.kinds import KINDS


class Kernels(kr.RestartObserver):
    """Compares the kernels of restarted layers before and after."""

    def __init__(self):
        self.changed = {}

    def on_restart_begin(self, event, restart):
        self.before = {name: self.kernel(restart, name) for name in event.layers}

    def on_restart_end(self, event, restart):
        for name, layer in event.layers.items():
            found = restart.scorer.layers[name].layer
            mask = kernels.filter_mask(found, np.array(layer.filters))
            mask = np.broadcast_to(mask, self.before[name].shape)
            moved = self.kernel(restart, name) != self.before[name]
            self.changed[name] = bool(moved[mask].mean() > 0.9), bool(moved[~mask].any())

    @staticmethod
    def kernel(restart, name):
        return np.asarray(kernels.incoming_kernel(restart.scorer.layers[name].layer))


@pytest.mark.parametrize("name", KINDS)
def test_a_model_is_scored_and_restarted_as_it_stands(name, tmp_path):
    example, watch = KINDS[name](), Kernels()
    restart, history = models_page.train(example, observers=[watch])
    assert np.isfinite(history.history["loss"]).all()
    scores = np.concatenate(list(restart.scores.values()))
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()
    assert scores.any()
    assert len(restart.events) == 1
    assert watch.changed
    assert set(watch.changed.values()) == {(True, False)}
    row = models_page.row(name, restart)
    assert (row.watched, row.filters) == (example.watched, example.filters)
    # After a change: `python -m tests.zoo.models_page` writes the page again.
    assert models_page.read().get(name) == row
    # Keras saves no model without a `call`: what is saved then are the models inside.
    model = example.model
    parts = [model] if model.built else [p for p in model.layers if isinstance(p, keras.Model)]
    for part in parts:
        assert_saves_without_the_callback(part, tmp_path)


def assert_saves_without_the_callback(model, folder):
    saved = [np.asarray(weight) for weight in model.weights]
    model.save_weights(folder / "model.weights.h5")
    for weight in model.weights:
        weight.assign(keras.ops.zeros_like(weight))
    model.load_weights(folder / "model.weights.h5")
    for weight, value in zip(model.weights, saved, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), value, err_msg=weight.path)
    if type(model) in (keras.Model, keras.Sequential):
        model.save(folder / "model.keras")
        assert b"kerasrestart" not in (folder / "model.keras").read_bytes()


def test_the_page_of_models_lists_every_kind_and_nine_in_ten_have_no_filter_out_of_reach():
    rows = models_page.read()
    assert sorted(rows) == sorted(KINDS)  # the order is that of the imports, which differ
    assert len(rows) >= 40
    assert sum(not row.out_of_reach for row in rows.values()) >= 0.9 * len(rows)
