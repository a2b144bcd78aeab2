"""Only the chosen filters get new weights; every other number stays bit for bit."""

import keras
import numpy as np
import pytest
from keras import layers

import kerasrestart as kr
from kerasrestart.network.filter_layers import find_filter_layers
from kerasrestart.restart.surgery import reset_optimizer_state

CHOSEN = {"normed": [1], "first": [0, 2], "up": [3, 4]}


@pytest.fixture
def net(randomized):
    """Two convolutions of equal shape, one with a norm, a transposed one."""

    def build(bias_initializer="zeros", **norm):
        return randomized(
            keras.Sequential(
                [
                    keras.Input((6, 6, 3)),
                    layers.Conv2D(5, 3, padding="same", use_bias=False, name="normed"),
                    layers.BatchNormalization(name="norm", **norm),
                    layers.ReLU(),
                    layers.Conv2D(
                        5, 3, padding="same", name="first", bias_initializer=bias_initializer
                    ),
                    layers.Conv2D(5, 3, padding="same", name="second"),
                    layers.Conv2DTranspose(6, 3, activation="relu", name="up"),
                    layers.Flatten(),
                    layers.Dense(3, name="logits"),
                ]
            )
        )

    return build


def values(model):
    return {w.path.removeprefix(f"{model.name}/"): w.numpy() for w in model.weights}


def touched(name, value):
    """The mask of the numbers that `CHOSEN` means in the weight of that path."""
    mask = np.zeros(value.shape, bool)
    layer = "normed" if name.startswith("norm/") else name.split("/")[0]
    if layer in CHOSEN:
        filters_last = np.moveaxis(mask, -2, -1) if name == "up/kernel" else mask
        filters_last[..., CHOSEN[layer]] = True
    return mask


def restarted(model, chosen=CHOSEN, **options):
    """The weights of a model before and after."""
    before = values(model)
    kr.restart_filters(model, chosen, **options)
    return before, values(model)


@pytest.mark.parametrize("initializer", ["uniform", "minmax", "distribution", "he_normal"])
def test_chosen_filters_change_and_all_else_stays_bit_for_bit(initializer, net):
    before, after = restarted(net("random_normal"), initializer=initializer)
    shares = []
    for name, old in before.items():
        mask = touched(name, old)
        np.testing.assert_array_equal(after[name][~mask], old[~mask], err_msg=name)
        shares.append((after[name][mask] != old[mask]).mean() if mask.any() else 1)
        if name == "up/kernel":
            assert mask.sum() == 9 * 2 * 5
    # `distribution` may draw the old weight of that position.
    assert min(shares) > (0.9 if initializer == "distribution" else 0.9999)


def test_new_kernel_is_in_the_range_of_the_rule(net):
    _, after = restarted(net(), initializer="uniform")
    for name in ("normed/kernel", "first/kernel", "up/kernel"):
        new = after[name][touched(name, after[name])]
        assert 0.04 < np.abs(new).max() <= 0.05


@pytest.mark.parametrize("initializer", ["xavier", "glorot_uniform"])
def test_xavier_bound_is_of_the_whole_kernel_not_of_the_slice(initializer, net):
    _, after = restarted(net(), {"first": [0, 2]}, initializer=initializer)
    new, bound = after["first/kernel"][..., [0, 2]], np.sqrt(6 / (9 * 5 + 9 * 5))
    assert 0.95 * bound < np.abs(new).max() <= bound


def test_distribution_and_minmax_keep_to_each_filter_of_a_transposed_kernel(net):
    before, after = restarted(net(), {"up": [3, 4]}, initializer="distribution")
    for k in (3, 4):
        old = before["up/kernel"][:, :, k]
        assert np.isin(after["up/kernel"][:, :, k], old).all()


def test_bias_begins_again_by_the_layers_own_initializer(net):
    before, after = restarted(net(keras.initializers.Constant(0.25)))
    np.testing.assert_array_equal(after["first/bias"][[0, 2]], 0.25)
    np.testing.assert_array_equal(after["first/bias"][[1, 3, 4]], before["first/bias"][[1, 3, 4]])
    np.testing.assert_array_equal(after["up/bias"][[3, 4]], 0)


@pytest.mark.parametrize(
    ("norm", "fresh"),
    [
        ({}, {"gamma": 1, "beta": 0, "moving_mean": 0, "moving_variance": 1}),
        ({"scale": False, "center": False}, {"moving_mean": 0, "moving_variance": 1}),
    ],
)
def test_norm_of_a_restarted_filter_is_that_of_a_new_layer(norm, fresh, net):
    before, after = restarted(net(**norm))
    assert {name.split("/")[1] for name in before if name.startswith("norm/")} == set(fresh)
    for name, value in fresh.items():
        assert before[f"norm/{name}"][1] != value
        assert after[f"norm/{name}"][1] == value
        others = [0, 2, 3, 4]
        np.testing.assert_array_equal(after[f"norm/{name}"][others], before[f"norm/{name}"][others])


@pytest.mark.parametrize("norm", [layers.LayerNormalization, lambda: layers.GroupNormalization(2)])
def test_channel_of_a_norm_over_channels_begins_anew(norm):
    made = norm()
    model = keras.Sequential(
        [
            *(keras.Input((6, 6, 2)), layers.Conv2D(4, 3, name="it"), made, layers.ReLU()),
            *(layers.Flatten(), layers.Dense(2)),
        ]
    )
    for variable in (made.gamma, made.beta):
        variable.assign([2.0, 3.0, 4.0, 5.0])
    kr.restart_filters(model, {"it": [1]})
    np.testing.assert_array_equal(made.gamma, [2, 1, 4, 5])
    np.testing.assert_array_equal(made.beta, [2, 0, 4, 5])


def channels_anew(norm):
    """The channels of a norm that are those of a new layer, where all began as something else."""
    fresh = {"gamma": 1, "beta": 0, "moving_mean": 0, "moving_variance": 1}
    is_fresh = [np.asarray(getattr(norm, name)) == value for name, value in fresh.items()]
    np.testing.assert_array_equal(np.all(is_fresh, axis=0), np.any(is_fresh, axis=0))
    return np.flatnonzero(is_fresh[0]).tolist()


def with_norms(join, behind):
    """A layer `it` of four filters, what follows, and two norms."""
    image = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, padding="same", name="it")(image)
    x = layers.AveragePooling2D(2)(join(x, layers.Conv2D(4, 3, padding="same")(image)))
    first = layers.BatchNormalization(name="first")
    x = behind(layers.ReLU()(first(x)))
    x = layers.BatchNormalization(name="second")(x)
    model = keras.Model(image, layers.Dense(2)(layers.Conv2D(3, 1)(x)))
    for norm in (first, model.get_layer("second")):
        for variable in norm.weights:
            variable.assign(0.35 + 0.1 * np.arange(variable.shape[0]))
    return model


JOINS = {
    "alone": lambda x, other: x,
    "before": lambda x, other: layers.Concatenate()([x, other]),
    "behind": lambda x, other: layers.Concatenate()([other, x]),
    "sum": lambda x, other: layers.Add()([x, other]),
}


@pytest.mark.parametrize(
    ("join", "outgoing", "first", "second"),
    [
        ("alone", "keep", [1, 3], []),
        ("before", "keep", [1, 3], []),
        ("behind", "keep", [5, 7], []),
        ("sum", "keep", [], []),
        ("alone", "zero", [1, 3], [1, 3]),
        ("behind", "zero", [5, 7], [5, 7]),
    ],
)
def test_norms_further_on_begin_anew_where_a_channel_passes_by_itself(
    join, outgoing, first, second
):
    model = with_norms(JOINS[join], layers.DepthwiseConv2D(2, bias_initializer="ones"))
    kr.restart_filters(model, {"it": [1, 3]}, outgoing=outgoing)
    assert channels_anew(model.get_layer("first")) == first
    assert channels_anew(model.get_layer("second")) == second


def test_norms_of_channels_that_are_kept_stay():
    model = with_norms(JOINS["before"], lambda x: layers.ReLU()(x))
    kr.restart_filters(model, {"it": [1, 3]}, norms=False)
    assert channels_anew(model.get_layer("first")) == []
    model.get_layer("second").trainable = False
    with pytest.warns(UserWarning, match="Frozen norms"):
        kr.restart_filters(model, {"it": [1, 3]}, outgoing="zero")
    assert channels_anew(model.get_layer("first")) == [1, 3]
    assert channels_anew(model.get_layer("second")) == []


def test_norm_may_be_kept(net):
    before, after = restarted(net(), norms=False)
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        np.testing.assert_array_equal(after[f"norm/{name}"], before[f"norm/{name}"])
    assert not np.array_equal(after["normed/kernel"], before["normed/kernel"])


def test_frozen_norm_stays_and_is_reported(net):
    model = net()
    model.get_layer("norm").trainable = False
    with pytest.warns(UserWarning, match="Frozen norms keep the values of restarted .*: norm"):
        before, after = restarted(model)
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        np.testing.assert_array_equal(after[f"norm/{name}"], before[f"norm/{name}"])
    assert not np.array_equal(after["normed/kernel"], before["normed/kernel"])


@pytest.mark.parametrize("initializer", ["uniform", "minmax", keras.initializers.HeNormal(seed=4)])
def test_seed_makes_the_weights(initializer, net):
    def kernel(seed, seed_before=None):
        if seed_before is not None:
            keras.utils.set_random_seed(seed_before)
        return restarted(net(), initializer=initializer, seed=seed)[1]["first/kernel"]

    np.testing.assert_array_equal(kernel(0, 5), kernel(0, 6))
    chosen = touched("first/kernel", kernel(0))
    assert (kernel(0) != kernel(1))[chosen].mean() > 0.9


@pytest.mark.parametrize("initializer", ["uniform", keras.initializers.HeNormal(seed=4)])
def test_layers_of_equal_shape_draw_differently(initializer, net):
    _, after = restarted(net(), {"first": [0], "second": [0]}, initializer=initializer)
    first, second = after["first/kernel"][..., 0], after["second/kernel"][..., 0]
    assert (first != second).mean() > 0.9


def test_weights_of_a_layer_do_not_depend_on_which_others_are_chosen(net):
    alone = restarted(net(), {"second": [3]})[1]["second/kernel"]
    among = restarted(net(), {"first": [0], "second": [3]})[1]["second/kernel"]
    np.testing.assert_array_equal(alone, among)


def test_restarting_does_not_disturb_the_global_random_state(net):
    model = net()
    keras.utils.set_random_seed(3)
    expected = np.random.random(), np.asarray(keras.random.normal((3,)))
    keras.utils.set_random_seed(3)
    kr.restart_filters(model, CHOSEN)
    now = np.random.random(), np.asarray(keras.random.normal((3,)))
    assert now[0] == expected[0]
    np.testing.assert_array_equal(now[1], expected[1])


@pytest.mark.parametrize(
    ("chosen", "options", "message"),
    [
        ({"first": [0], "logits": [1]}, {}, "logits"),
        ({"first": [0], "nowhere": [1]}, {}, "nowhere"),
        ({"first": [0], "second": [5]}, {}, "0 to 4"),
        ({"first": [0], "second": [-1]}, {}, "0 to 4"),
        ({"first": [0], "second": [0.5]}, {}, "indices"),
        ({"first": [0], "second": np.ones(5, bool)}, {}, "indices"),
        ({"first": [0], "second": 3}, {}, "indices"),
        (
            {"first": [0], "second": range(5)},
            {},
            "chosen must leave at least one of the 5 filters of layer 'second'",
        ),
        (
            {"first": [0], "second": [1, 3, 1]},
            {},
            "chosen must have each filter of layer 'second' once",
        ),
        ({"first": [0]}, {"initializer": "unifrom"}, "unifrom"),
        ({"first": [0]}, {"initializer": "none"}, "control='none'"),
        ({"first": [0]}, {"initializer": None}, "control='none'"),
        ({"first": [0]}, {"initializer": "slots"}, "control='slots'"),
        ({"first": [0]}, {"outgoing": "loose"}, "outgoing"),
        ({"first": [0]}, {"seed": -1}, "seed|negative"),
    ],
    ids=str,
)
def test_refused_arguments_change_nothing(chosen, options, message, net):
    model = net()
    before = values(model)
    with pytest.raises(ValueError, match=message) as error:
        kr.restart_filters(model, chosen, **options)
    assert "\n" not in str(error.value)
    for name, old in values(model).items():
        np.testing.assert_array_equal(old, before[name])


def test_initializer_that_fails_at_a_later_layer_changes_nothing(net):
    def for_few_inputs_only(shape, dtype=None):
        if shape[-2] > 3:
            raise ValueError("too many inputs")
        return keras.ops.ones(shape, dtype)

    model = net()
    before = values(model)
    with pytest.raises(ValueError, match="too many inputs"):
        kr.restart_filters(model, CHOSEN, initializer=for_few_inputs_only)
    for name, old in values(model).items():
        np.testing.assert_array_equal(old, before[name], err_msg=name)


def test_no_filter_chosen_changes_nothing(net):
    before, after = restarted(net(), {"first": [], "up": np.array([], int)})
    assert all(np.array_equal(after[name], old) for name, old in before.items())


def test_indices_may_come_as_select_filters_gives_them(net):
    model = net()
    scores = {"first": np.array([3.0, 1, 2, 5, 4]), "up": np.arange(6.0)}
    before, after = restarted(model, kr.select_filters(scores, fraction=0.2))
    changed = (after["first/kernel"] != before["first/kernel"]).any(axis=(0, 1, 2))
    assert changed.tolist() == [False, True, False, False, False]


def test_filters_of_a_nested_model_are_restarted():
    block = keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(4, 3, name="inner")])
    model = keras.Sequential([keras.Input((6, 6, 3)), block, layers.Flatten(), layers.Dense(2)])
    old = block.get_layer("inner").kernel.numpy()
    kr.restart_filters(model, {"inner": [2]})
    changed = (block.get_layer("inner").kernel.numpy() != old).any(axis=(0, 1, 2))
    assert changed.tolist() == [False, False, True, False]


def test_draws_of_a_layer_do_not_depend_on_which_others_take_part(net):
    def kernel(layers):
        model = net()
        model.compile("sgd", loss="mse")
        chosen = {"first": [0, 2]}
        found = find_filter_layers(model, layers)
        kr.restart_filters(model, chosen, initializer="he_uniform", seed=3, found=found)
        return model.get_layer("first").kernel.numpy()

    np.testing.assert_array_equal(kernel(None), kernel(["first"]))


def test_reset_of_the_optimizer_state_changes_no_weight_and_the_slots_of_a_restart(net):
    def trained():
        model = net()
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9, use_ema=True), "mse")
        model.optimizer.build(model.trainable_variables)
        for slot in model.optimizer.momentums:
            slot.assign(np.ones(slot.shape))
        return model

    model, restarted_model = trained(), trained()
    before = values(model)
    reset_optimizer_state(model, CHOSEN)
    kr.restart_filters(restarted_model, CHOSEN)
    assert all(np.array_equal(old, values(model)[name]) for name, old in before.items())
    both = zip(model.optimizer.momentums, restarted_model.optimizer.momentums, strict=True)
    for ours, theirs in both:
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
        assert not ours.numpy().all() or "second" in ours.path or "logits" in ours.path
