"""The slots of every optimizer that this Keras has, against those of an optimizer just built."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, optimizers

import kerasrestart as kr
from kerasrestart.restart import slots

WRAPPERS = ("LossScaleOptimizer", "MultiOptimizer")
NAMES = sorted(
    name
    for name, entry in vars(optimizers).items()
    if inspect.isclass(entry)
    and issubclass(entry, optimizers.Optimizer)
    and entry is not optimizers.Optimizer
    and name not in WRAPPERS
)
# What turns more slots on, or gives them another start.
OPTIONS = {
    "SGD": {"momentum": 0.9},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adam": {"amsgrad": True},
    "AdamW": {"amsgrad": True},
    "Adagrad": {"initial_accumulator_value": 0.3},
    "Ftrl": {"initial_accumulator_value": 0.7},
    "Muon": {"exclude_layers": ["head"]},
}
COMMON = {"use_ema": True, "gradient_accumulation_steps": 2}
CASES = [
    *((name, {}) for name in NAMES),
    *((name, OPTIONS.get(name, {}) | COMMON) for name in NAMES),
]
IDS = [f"{name}{' with all' * bool(options)}" for name, options in CASES]

# By weight: shape, index of the restarted numbers.
CONV, UP, TALL = np.s_[..., [1, 3]], np.s_[:, :, [0]], np.s_[..., [2]]
WEIGHTS = {
    "conv_kernel": ((3, 3, 2, 4), CONV),
    "conv_bias": ((4,), CONV),
    "up_kernel": ((2, 2, 4, 4), UP),  # transposed: filters are the last axis but one
    "dense_kernel": ((5, 3), TALL),
    "head_kernel": ((5, 3), TALL),
    "scale": ((), None),
}
# By weight: the index of those entries of Adafactor's r (without the last axis) and c (without the
# last but one) that are a mean over restarted filters alone.
FACTORED = {
    "conv_kernel": (None, CONV),
    "up_kernel": (UP, None),
    "dense_kernel": (None, TALL),
    "head_kernel": (None, TALL),
}


def drawn(seed, shape):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype("float32")


def build(optimizer, values):
    weights = {name: keras.Variable(value, name=name) for name, value in values.items()}
    optimizer.build(list(weights.values()))
    return weights


def fill(optimizer):
    for number, slot in enumerate(optimizer.variables):
        if len(slot.shape):
            slot.assign(np.abs(drawn(number, slot.shape)) + 1)


def mask_of(shape, index):
    mask = np.zeros(shape, bool)
    if index is not None:
        mask[index] = True
    return mask


def reset_all(optimizer, weights, new, **options):
    for name, weight in weights.items():
        mask = mask_of(weight.shape, WEIGHTS[name][1])
        weight.assign(new[name])
        slots.reset_slots(optimizer, weight, mask, **options)


# A wrapper is tried around one optimizer of each kind: with slots of other initial values, with
# factored slots, and with a scalar that Keras tracks only without a wrapper.
WRAPPED = ("Adagrad", "Adafactor", "Nadam")


@pytest.mark.parametrize(
    ("name", "options", "wrap"),
    [
        *((*case, "") for case in CASES),
        *((*case, wrap) for case in CASES if case[0] in WRAPPED and case[1] for wrap in WRAPPERS),
    ],
    ids=[
        *IDS,
        *(f"{n} {w}" for n, options in CASES if n in WRAPPED and options for w in WRAPPERS),
    ],
)
def test_slots_of_restarted_filters_are_those_of_an_untouched_weight(name, options, wrap):
    make = getattr(optimizers, name)
    inner = optimizer = make(learning_rate=0.01, **options)
    if wrap == "LossScaleOptimizer":
        optimizer = optimizers.LossScaleOptimizer(inner)
    elif wrap:
        if not hasattr(optimizers, wrap):
            pytest.skip("this Keras has no MultiOptimizer")
        optimizer = optimizers.MultiOptimizer(lambda variable: inner)
    new = {weight: drawn(99, shape) for weight, (shape, _) in WEIGHTS.items()}
    weights = build(optimizer, {weight: drawn(1, shape) for weight, (shape, _) in WEIGHTS.items()})
    untouched = make.from_config(inner.get_config())
    # Under a loss scale Keras does not track Nadam's product: the same wrapper, the same variables.
    build(optimizers.LossScaleOptimizer(untouched) if "Loss" in wrap else untouched, new)
    fill(inner)
    slots.check_slots(optimizer)
    before = [slot.numpy() for slot in inner.variables]
    outside = [v.numpy() for v in optimizer.variables if all(v is not s for s in inner.variables)]

    reset_all(optimizer, weights, new)

    shapes_seen = set()
    for old, slot, fresh in zip(before, inner.variables, untouched.variables, strict=True):
        owner, index = owner_of(inner, slot)
        fresh = new[owner] if slot.path.endswith("_average") else fresh.numpy()
        mask = mask_of(slot.shape, index)
        np.testing.assert_array_equal(slot.numpy()[mask], fresh[mask], err_msg=slot.path)
        np.testing.assert_array_equal(slot.numpy()[~mask], old[~mask], err_msg=slot.path)
        assert (slot.numpy() != old)[mask].all()
        shapes_seen |= {(owner, slot.shape)} if mask.any() else set()
    if inner.variables[2:]:  # any slots at all
        assert {owner for owner, _ in shapes_seen} == set(WEIGHTS) - {"scale"}
    now = [v.numpy() for v in optimizer.variables if all(v is not s for s in inner.variables)]
    assert all(np.array_equal(a, b) for a, b in zip(now, outside, strict=True))


def owner_of(optimizer, slot):
    """The weight that a slot belongs to, and the index of its entries to reset; by its path."""
    for attribute, which in (("_r", 0), ("_c", 1)):
        for number, factored in enumerate(getattr(optimizer, attribute, ())):
            if factored is slot:
                owner = list(WEIGHTS)[number]
                return owner, FACTORED.get(owner, (None, None))[which]
    for owner, (_, index) in WEIGHTS.items():
        if f"/{owner}_" in slot.path:
            return owner, index
    return None, None


def small_net():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, name="logits"),
        ]
    )


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_training_goes_on_and_moves_the_restarted_filters(name, options, randomized):
    second_moment = "survivors" if options else "zero"
    optimizer = getattr(optimizers, name)(**options)
    model = randomized(small_net())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if options:
        optimizer = optimizers.LossScaleOptimizer(optimizer)
    weights = model.trainable_variables
    optimizer.build(weights)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 6, 6, 2)).astype("float32"), rng.integers(0, 3, 16)

    def step():
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
            scaled = optimizer.scale_loss(value)
        optimizer.apply(tape.gradient(scaled, [w.value for w in weights]), weights)
        return value

    for _ in range(2):
        step()
    kr.restart_filters(model, {"conv": [1, 3]})  # no optimizer: the model is not compiled
    for weight in (model.get_layer("conv").kernel, model.get_layer("conv").bias):
        mask = mask_of(weight.shape, CONV)
        slots.reset_slots(optimizer, weight, mask, second_moment)
    restarted = model.get_layer("conv").kernel.numpy()[CONV]
    assert all(np.isfinite(step().numpy()) for _ in range(2))
    change = model.get_layer("conv").kernel.numpy()[CONV] - restarted
    assert np.isfinite(change).all()
    assert (np.abs(change).max(axis=(0, 1, 2)) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_restart_resets_the_slots_of_any_optimizer(name, randomized):
    model = randomized(small_net())
    model.compile(getattr(optimizers, name)(**OPTIONS.get(name, {}), use_ema=True), loss="mse")
    model.optimizer.build(model.trainable_variables)
    fill(model.optimizer)
    before = [slot.numpy() for slot in model.optimizer.variables]
    kr.restart_filters(model, {"conv": [1, 3]})
    kernel = model.get_layer("conv").kernel
    checked = 0
    for slot, old in zip(model.optimizer.variables, before, strict=True):
        if slot.shape == kernel.shape:
            assert np.array_equal(slot.numpy()[..., [0, 2]], old[..., [0, 2]])
            assert (slot.numpy()[CONV] != old[CONV]).all()
            checked += 1
    assert checked


@pytest.mark.parametrize(
    "name", ["SGD", "Adam", "Adafactor", *(w for w in WRAPPERS if hasattr(optimizers, w))]
)
def test_fit_restarts_filters_and_learning_rate_with_any_optimizer(name):
    make = getattr(optimizers, name)
    if name == "LossScaleOptimizer":
        optimizer = make(optimizers.Adam(0.01))
    elif name == "MultiOptimizer":
        others = {"logits/.*": optimizers.SGD(0.002, momentum=0.9)}
        optimizer = make(optimizers.OptimizerMap(optimizers.Adam(0.01), others))
    else:
        optimizer = make(learning_rate=0.01)
    model = small_net()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, run_eagerly=True)  # a graph takes longer to make than to use
    restart = kr.PartialRestart(
        fraction=0.25,
        when=kr.EveryEpochs(2, monitor="loss", learning_rate_drops=1),
        max_restarts=1,
    )
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 6, 6, 2)).astype("float32"), rng.integers(0, 3, 8)
    logs = model.fit(x, y, epochs=4, callbacks=[restart], verbose=0).history
    assert len(restart.events) == 1
    assert logs["learning_rate"] == [0.01, 0.001, 0.01, 0.001]
    assert np.isfinite(logs["loss"]).all()


def test_each_optimizer_of_several_has_the_rules_of_its_own_class():
    if not hasattr(optimizers, "MultiOptimizer"):
        pytest.skip("this Keras has no MultiOptimizer")
    parts = {"a": optimizers.Adagrad(initial_accumulator_value=0.4), "b": optimizers.Lion()}
    optimizer = optimizers.LossScaleOptimizer(
        optimizers.MultiOptimizer(lambda variable: parts[variable.name])
    )
    weights = build(optimizer, {"a": drawn(0, (4,)), "b": drawn(1, (4,))})
    fill(optimizer)
    slots.check_slots(optimizer)
    for weight in weights.values():
        slots.reset_slots(optimizer, weight, np.array([True, False, False, True]))
    (sums,), (momentum,) = parts["a"]._accumulators, parts["b"]._momentums
    np.testing.assert_array_equal(sums.numpy()[[0, 3]], np.float32([0.4, 0.4]))
    np.testing.assert_array_equal(momentum.numpy()[[0, 3]], 0)
    assert (sums.numpy()[1:3] >= 1).all()
    assert (momentum.numpy()[1:3] >= 1).all()


@pytest.mark.parametrize("optimizer", [None, optimizers.Adam(), "of other weights"])
def test_without_slots_nothing_is_reset(optimizer):
    weight = keras.Variable(np.ones(3))
    if isinstance(optimizer, str):
        optimizer = optimizers.Adam()
        build(optimizer, {"other": np.ones(3)})
        fill(optimizer)
    before = [v.numpy() for v in optimizer.variables] if optimizer else []
    slots.reset_slots(optimizer, weight, np.ones(3, bool))
    after = [v.numpy() for v in optimizer.variables] if optimizer else []
    assert all(np.array_equal(a, b) for a, b in zip(after, before, strict=True))


# Second moments.

RATE, OLD, GRADIENT = 2.0**-7, 4.0, 0.5  # the survivors' second moment; the new filter's gradient
LATE = 100_000
C1, C2 = (1 - float(np.float32(beta)) for beta in (0.9, 0.999))
FIRST_STEPS = {
    # The step in learning rates, by hand: b1 = 0.9, b2 = 0.999, bias corrections 1 and so left out.
    # C1, C2: 1 - b1 and 1 - b2 of those that round them to float32 on the way.
    "Adam": lambda v, g: 0.1 * g / np.sqrt(v + 0.001 * (g**2 - v)),
    "AdamW": lambda v, g: 0.1 * g / np.sqrt(v + 0.001 * (g**2 - v)),
    # 0.96**t is gone, and with it the product of the u: u = 0.9, m_hat = 0.9 m + 0.1 g.
    "Nadam": lambda v, g: ((1 - C1) * C1 * g + C1 * g) / np.sqrt(v + C2 * (g**2 - v)),
    "Adamax": lambda v, g: 0.1 * g / max(0.999 * v, abs(g)),
    "RMSprop": lambda v, g: g / np.sqrt(0.9 * v + 0.1 * g**2),
    # Of z, where the gradient goes; the weight is an average that follows it slowly.
    "ScheduleFreeAdamW": lambda v, g: g / np.sqrt(v + C2 * (g**2 - v)),
    "Muon": lambda v, g: 0.1 * g / np.sqrt(v + 0.001 * (g**2 - v)),
}


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in FIRST_STEPS if hasattr(optimizers, name)] + [("Adam", {"amsgrad": 1})],
)
def test_first_step_of_a_restarted_weight_late_in_training(name, options):
    sizes = {}
    for second_moment in slots.SECOND_MOMENTS:
        optimizer = getattr(optimizers, name)(RATE, epsilon=1e-30, **options)
        optimizer.weight_decay = optimizer.adam_weight_decay = None
        weight = keras.Variable(np.ones(3), dtype="float64", name="weight")
        optimizer.build([weight])
        for slot in optimizer.variables:
            if slot.shape == (3,):
                slot.assign([7.0, OLD - 1, OLD + 1])
        optimizer.iterations.assign(LATE)
        if name == "Nadam":
            optimizer._u_product.assign(0)
        mask = np.array([True, False, False])
        slots.reset_slots(optimizer, weight, mask, second_moment)
        optimizer.apply([tf.constant([GRADIENT] * 3, tf.float64)], [weight])
        v = OLD if second_moment == "survivors" else 0
        moved = optimizer._momentums[0] if name == "ScheduleFreeAdamW" else weight
        sizes[second_moment] = (1 - moved.numpy()[0]) / RATE
        expected = FIRST_STEPS[name](v, GRADIENT)
        if options and v:  # amsgrad: the greater of the filled maximum and the new mean
            expected = 0.1 * GRADIENT / np.sqrt(OLD)
        assert sizes[second_moment] == pytest.approx(expected, rel=1e-9)
    if name == "Adam":
        assert sizes["zero"] == pytest.approx(np.sqrt(10))
        assert sizes["survivors"] < 0.03


def test_survivors_fill_second_moments_and_nothing_else():
    optimizer = optimizers.Adam(amsgrad=True, use_ema=True, gradient_accumulation_steps=2)
    weights = build(optimizer, {"conv_kernel": drawn(0, (3, 3, 2, 4))})
    fill(optimizer)
    old = {slot.path: slot.numpy() for slot in optimizer.variables}
    new = drawn(1, (3, 3, 2, 4))
    reset_all(optimizer, weights, {"conv_kernel": new}, second_moment="survivors")
    seen = []
    for slot in optimizer.variables:
        if not len(slot.shape):
            continue
        mean = old[slot.path][..., [0, 2]].astype("float64").mean(-1, keepdims=True)
        mean = np.broadcast_to(mean, (3, 3, 2, 2)).astype("float32")
        kind = slot.path.rpartition("conv_kernel_")[2]
        zero = np.zeros_like(mean)
        expected = {"velocity": mean, "velocity_hat": mean, "average": new[CONV]}.get(kind, zero)
        np.testing.assert_array_equal(slot.numpy()[CONV], expected, err_msg=kind)
        assert np.array_equal(slot.numpy()[..., [0, 2]], old[slot.path][..., [0, 2]])
        seen.append(kind)
    assert sorted(seen) == sorted(
        ["average", "gradient_accumulator", "momentum", "velocity", "velocity_hat"]
    )


def test_survivors_fill_what_adafactor_keeps_of_a_filter_alone():
    optimizer = optimizers.Adafactor()
    shapes = {name: WEIGHTS[name][0] for name in ("conv_kernel", "up_kernel")}
    weights = build(optimizer, {name: drawn(0, shape) for name, shape in shapes.items()})
    fill(optimizer)
    old_r, old_c = ([s.numpy() for s in of_all] for of_all in (optimizer._r, optimizer._c))
    reset_all(optimizer, weights, weights, second_moment="survivors")
    (conv_r, up_r), (conv_c, up_c) = optimizer._r, optimizer._c
    np.testing.assert_array_equal(conv_r.numpy(), old_r[0])
    np.testing.assert_array_equal(up_c.numpy(), old_c[1])
    for filter_ in (1, 3):
        np.testing.assert_allclose(
            conv_c.numpy()[..., filter_], old_c[0][..., [0, 2]].mean(-1), rtol=1e-6
        )
    np.testing.assert_allclose(up_r.numpy()[..., 0], old_r[1][..., 1:].mean(-1), rtol=1e-6)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ([[False, True, False]], [[2.0], [20.0]]),
        ([[False, True, False], [False, True, False]], [[2.0], [20.0]]),
        ([[True], [False]], [[10.0, 20.0, 30.0]]),
        ([[True, True, True], [False, True, False]], [[20.0]]),  # no one axis of filters
        ([[True]], [[0.0]]),
    ],
)
def test_mean_of_survivors_is_taken_position_by_position(mask, expected):
    values = tf.constant([[1.0, 7, 3], [10, 20, 30]])
    got = slots.survivors_mean(values, np.array(mask))
    np.testing.assert_array_equal(np.broadcast_to(got, (2, 3)), np.broadcast_to(expected, (2, 3)))


@pytest.mark.parametrize("value", ["mean", None, 0, ["zero"]])
def test_an_unknown_rule_for_second_moments_is_an_error(value):
    with pytest.raises(ValueError, match=r"second_moment must be one of \['zero', 'survivors'\]"):
        slots.reset_slots(None, keras.Variable(1.0), np.array(True), value)
