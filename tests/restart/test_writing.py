"""Only what trains is written, and constraints hold right after a restart."""

import keras
import numpy as np
import pytest
from keras import constraints, layers

import kerasrestart as kr
from kerasrestart.restart import surgery


def model_of(outgoing_constraint=None, **options):
    model = keras.Sequential(
        [
            *(keras.Input((6, 6, 2)), layers.Conv2D(4, 3, name="it", **options), layers.ReLU()),
            layers.Conv2D(3, 3, name="reader", kernel_constraint=outgoing_constraint),
            *(layers.Flatten(), layers.Dense(2, name="out")),
        ]
    )
    for variable in model.trainable_variables:  # as after a step of training
        if variable.constraint is not None:
            variable.assign(variable.constraint(variable.value))
    return model


PER_FILTER = {
    "non_neg": "non_neg",
    "unit_norm": constraints.UnitNorm(axis=[0, 1, 2]),
    "max_norm": constraints.MaxNorm(0.05, axis=[0, 1, 2]),
    "min_max_norm": constraints.MinMaxNorm(0.2, 0.3, axis=[0, 1, 2]),
    "default axis": constraints.MaxNorm(0.03),
    "own": lambda w: keras.ops.clip(w, -0.01, 0.01),
}


@pytest.mark.parametrize("name", PER_FILTER)
def test_a_constraint_holds_after_a_restart_and_other_filters_stay_bit_for_bit(name):
    model = model_of(kernel_constraint=PER_FILTER[name])
    kernel = model.get_layer("it").kernel
    before = kernel.numpy()
    kr.restart_filters(model, {"it": [1, 3]})
    after = kernel.numpy()
    np.testing.assert_allclose(kernel.constraint(kernel.value), after, rtol=1e-5, atol=1e-8)
    np.testing.assert_array_equal(after[..., [0, 2]], before[..., [0, 2]])
    assert (after[..., [1, 3]] != before[..., [1, 3]]).mean() > 0.4  # of non_neg half is zero


def test_a_constraint_over_all_filters_holds_for_all():
    model = model_of(kernel_constraint=constraints.UnitNorm(axis=-1))
    kernel = model.get_layer("it").kernel
    kr.restart_filters(model, {"it": [1, 3]})
    np.testing.assert_allclose(np.linalg.norm(kernel.numpy(), axis=-1), 1, rtol=1e-5)


def test_constraints_of_bias_norm_and_reader_hold_too():
    model = model_of(
        outgoing_constraint=constraints.UnitNorm(axis=[0, 1, 2]),
        bias_constraint="non_neg",
        bias_initializer=keras.initializers.Constant(-1),
    )
    layer, reader = model.get_layer("it"), model.get_layer("reader")
    layer.bias.assign([1.0, 2, 3, 4])
    kr.restart_filters(model, {"it": [1, 3]}, outgoing="zero")
    np.testing.assert_array_equal(layer.bias.numpy(), [1, 0, 3, 0])
    np.testing.assert_allclose((reader.kernel.numpy() ** 2).sum((0, 1, 2)), 1, rtol=1e-5)
    assert not reader.kernel.numpy()[:, :, [1, 3]].any()


def test_an_average_is_set_to_the_constrained_weight():
    model = model_of(kernel_constraint="non_neg")
    model.compile(keras.optimizers.SGD(0.01, use_ema=True), "mse")
    model.optimizer.build(model.trainable_variables)
    kr.restart_filters(model, {"it": [1]})
    average = model.optimizer._model_variables_moving_average[0].numpy()[..., 1]
    np.testing.assert_array_equal(average, model.get_layer("it").kernel.numpy()[..., 1])
    assert average.min() == 0 < average.max()


def test_new_weights_that_a_constraint_sets_to_zero_count_as_zeros():
    model = model_of(kernel_constraint="non_neg")
    before = model.get_weights()
    below_zero = keras.initializers.Constant(-1)
    with pytest.raises(ValueError, match="never learn again"):
        kr.restart_filters(model, {"it": [1]}, initializer=below_zero, outgoing="zero")
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_frozen_kernel_is_refused_and_nothing_is_changed():
    model = model_of()
    model.get_layer("it").kernel.trainable = False  # its bias trains
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"'it', which cannot be .* not trainable"):
        kr.restart_filters(model, {"reader": [0], "it": [1]})
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_frozen_bias_is_never_written():
    model = model_of(bias_initializer="ones")
    layer = model.get_layer("it")
    layer.bias.assign([1.0, 2, 3, 4])
    layer.bias.trainable = False
    kr.restart_filters(model, {"it": [1]})
    np.testing.assert_array_equal(layer.bias.numpy(), [1, 2, 3, 4])


def test_a_frozen_bias_of_a_reader_takes_no_compensation():
    model = model_of()
    means = kr.reader_input_means(model, np.ones((4, 6, 6, 2), "float32"))
    model.get_layer("reader").bias.trainable = False
    with pytest.raises(ValueError, match=r"trainable bias.*reader has neither"):
        kr.restart_filters(model, {"it": [1]}, outgoing="zero", reader_input_means=means)


def test_compensation_of_a_bias_of_which_a_part_is_reset():
    model = model_of()
    x = np.random.default_rng(0).normal(size=(8, 6, 6, 2)).astype("float32")
    means = kr.reader_input_means(model, x)
    reader = model.get_layer("reader")
    reader.bias.assign([1.0, 2, 3])
    lost = (reader.kernel.numpy()[:, :, 1].sum((0, 1)) * means["reader"][1])[1:]
    kr.restart_filters(model, {"it": [1], "reader": [0]}, outgoing="zero", reader_input_means=means)
    np.testing.assert_allclose(reader.bias.numpy(), np.append(0, np.add(lost, [2, 3])), rtol=1e-5)


def test_layers_frozen_after_the_map_was_made_are_found():
    model = model_of()
    found = surgery.find_filter_layers(model)
    assert not surgery.obstacles(model, found, ["it", "reader"], outgoing="zero")
    model.get_layer("reader").trainable = False
    assert list(surgery.obstacles(model, found, ["it", "reader"])) == ["reader"]
    reasons = surgery.obstacles(model, found, ["it", "reader"], outgoing="zero")
    assert "fixed weights" in reasons["it"]
    assert "not trainable" in reasons["reader"]


class Freeze(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.get_layer("it").trainable = False


def test_a_layer_frozen_during_fit_is_not_restarted(capsys):
    model = model_of()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    before = {v.path.split("/", 1)[1]: v.numpy() for v in model.weights}
    restart = kr.PartialRestart(
        fraction=0.3, when=kr.EveryEpochs(1, monitor="loss"), max_restarts=1
    )
    x, y = np.ones((4, 6, 6, 2), "float32"), np.ones((4, 2), "float32")
    model.fit(x, y, epochs=2, verbose=2, callbacks=[restart, Freeze()])
    assert list(restart.events[0].layers) == ["reader"]
    assert "'it' is not restarted: its kernel is not trainable" in capsys.readouterr().out
    for variable in model.get_layer("it").weights:
        np.testing.assert_array_equal(variable.numpy(), before[f"it/{variable.name}"])
    assert (model.get_layer("reader").kernel.numpy() != before["reader/kernel"]).any()


class Gained(layers.Conv2D):
    def build(self, shape):
        super().build(shape)
        self.gain = self.add_weight(shape=(self.filters,), initializer="ones", name="gain")


def test_a_second_variable_per_filter_is_reported_in_one_line():
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), Gained(4, 3, name="it"), layers.Flatten(), layers.Dense(2)]
    )
    with pytest.warns(UserWarning, match=r"does not reset these variables .*/it/gain") as caught:
        kr.restart_filters(model, {"it": [1]})
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
