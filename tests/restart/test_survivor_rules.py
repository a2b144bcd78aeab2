"""The rules that look at the surviving filters, against float64 NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasrestart as kr
from kerasrestart.restart import initializers
from kerasrestart.restart.initializers import Clone, NormMatched

RULES = ["orthogonal_to_survivors", "norm_matched", "clone"]
# Shape, axis of the filters, chosen filters; each fan-in has room for all filters and new ones.
ROOMY = [
    ((3, 3, 4, 8), -1, [0, 3, 7]),
    ((3, 3, 9, 4), -2, [2, 5]),
    ((5, 3, 6), -1, [1, 2]),
    ((4, 7, 6), -2, [0, 6]),
    ((2, 3, 2, 2, 5), -1, [4]),
    ((2, 2, 2, 6, 4), -2, [0, 5]),
]


def kernel_of(shape, axis, seed=0):
    """Normal weights; each filter of another scale."""
    filters_last = np.random.default_rng(seed).normal(size=shape)
    filters_last *= np.moveaxis(
        np.linspace(0.5, 3, shape[axis]).reshape((-1,) + (1,) * (len(shape) - 1)), 0, axis
    )
    return tf.constant(filters_last.astype("float32"))


def columns(kernel, axis):
    filters_last = np.moveaxis(np.asarray(kernel, "float64"), axis, -1)
    return filters_last.reshape(-1, filters_last.shape[-1])


def mask_of(count, chosen):
    mask = np.zeros(count, bool)
    mask[chosen] = True
    return mask


def drawn(initializer, kernel, axis, chosen, seed=0):
    """The new filters, the surviving ones and the old values, as columns."""
    mask = mask_of(kernel.shape[axis], chosen)
    new = initializers.get(initializer)(kernel, axis, seed, mask)
    assert (new.shape, new.dtype) == (kernel.shape, kernel.dtype)
    old = columns(kernel, axis)
    np.testing.assert_array_equal(columns(new, axis)[:, ~mask], old[:, ~mask])
    return columns(new, axis)[:, mask], old[:, ~mask], old[:, mask]


def cosines(first, second):
    first, second = (m / np.linalg.norm(m, axis=0) for m in (first, second))
    return np.abs(first.T @ second)


def assert_orthogonal_to_one_another(vectors):
    np.testing.assert_allclose(cosines(vectors, vectors), np.eye(vectors.shape[1]), atol=1e-5)


def assert_norm_is_the_survivors_mean(new, survivors):
    expected = np.linalg.norm(survivors, axis=0).mean()
    np.testing.assert_allclose(np.linalg.norm(new, axis=0), expected, rtol=1e-5)


@pytest.mark.parametrize(("shape", "axis", "chosen"), ROOMY)
def test_orthogonal_to_survivors_to_old_values_and_to_one_another(shape, axis, chosen):
    kernel = kernel_of(shape, axis)
    new, survivors, old = drawn("orthogonal_to_survivors", kernel, axis, chosen)
    assert cosines(new, survivors).max() < 1e-5
    assert cosines(new, old).max() < 1e-5
    assert_orthogonal_to_one_another(new)
    assert_norm_is_the_survivors_mean(new, survivors)


def test_old_values_are_not_avoided_at_the_cost_of_a_survivor():
    kernel = kernel_of((2, 5, 8), -1)  # fan-in 10: room for 2 beside 8 filters, 5 beside 5
    new, survivors, old = drawn("orthogonal_to_survivors", kernel, -1, [0, 1, 2])
    assert cosines(new, survivors).max() < 1e-5
    assert cosines(new, old).max() > 0.05
    assert_orthogonal_to_one_another(new)


def test_orthogonal_draw_has_no_direction_of_its_own():
    """Over seeds, the second moments are those of any direction of the null space alike."""
    kernel = kernel_of((2, 5, 3), -1)
    draws = [drawn("orthogonal_to_survivors", kernel, -1, [0], seed)[0] for seed in range(400)]
    draws = np.hstack(draws) / np.linalg.norm(draws[0])
    u = np.linalg.svd(columns(kernel, -1))[0][:, 3:]
    np.testing.assert_allclose(draws @ draws.T / 400, u @ u.T / 7, atol=0.04)
    assert np.abs(draws.mean(axis=1)).max() < 0.1


@pytest.mark.parametrize("spoilt", ["twins", "combination", "zeros", "tiny"])
def test_survivors_that_depend_on_one_another_leave_their_dimensions_free(spoilt):
    weights = np.random.default_rng(1).normal(size=(6, 7)).astype("float32")
    if spoilt == "twins":
        weights[:, 5] = -3 * weights[:, 6]
    elif spoilt == "combination":
        weights[:, 5] = (weights[:, 6] - 2 * weights[:, 4]) / 7
    elif spoilt == "zeros":
        weights[:, 5] = 0
    else:
        weights[:, 5] *= 1e-12  # a direction like any other, however short
    new, survivors, _ = drawn("orthogonal_to_survivors", tf.constant(weights), -1, [0, 1])
    survivors = survivors[:, np.linalg.norm(survivors, axis=0) > 0]
    free = 6 - np.linalg.matrix_rank(survivors / np.linalg.norm(survivors, axis=0), tol=1e-5)
    assert free == (1 if spoilt == "tiny" else 2)
    assert cosines(new[:, :free], survivors).max() < 1e-5
    assert_orthogonal_to_one_another(new)


def test_nearly_dependent_survivors_are_avoided_still():
    weights = np.random.default_rng(1).normal(size=(40, 12))
    weights[:, 11] = weights[:, 10] + 1e-5 * weights[:, 11]
    new, survivors, _ = drawn("orthogonal_to_survivors", tf.constant(weights), -1, [0, 1, 2])
    assert cosines(new, survivors).max() < 1e-10
    assert cosines(new, survivors[:, 8:9] - survivors[:, 7:8]).max() < 1e-7


@pytest.mark.parametrize("axis", [-1, -2])
def test_without_a_null_space_the_least_used_directions_are_taken(axis):
    """Fan-in 12 and 17 survivors: the new ones span what the smallest singular values span."""
    kernel = kernel_of((3, 4, 20) if axis == -1 else (3, 20, 4), axis)
    new, survivors, _ = drawn("orthogonal_to_survivors", kernel, axis, [4, 9, 11])
    u, _, _ = np.linalg.svd(survivors / np.linalg.norm(survivors, axis=0))
    least = u[:, -3:]
    np.testing.assert_allclose(least @ (least.T @ new), new, atol=1e-5)
    assert_orthogonal_to_one_another(new)
    assert_norm_is_the_survivors_mean(new, survivors)


def test_a_null_space_that_is_too_small_is_taken_first():
    kernel = kernel_of((3, 4, 14), -1)  # fan-in 12, 10 survivors, 4 new filters
    new, survivors, _ = drawn("orthogonal_to_survivors", kernel, -1, [0, 5, 8, 13])
    u, _, _ = np.linalg.svd(survivors / np.linalg.norm(survivors, axis=0))
    assert cosines(new[:, :2], survivors).max() < 1e-5
    np.testing.assert_allclose(u[:, 8:10] @ (u[:, 8:10].T @ new[:, 2:]), new[:, 2:], atol=1e-5)
    assert_orthogonal_to_one_another(new)


def test_more_new_filters_than_fan_in_go_on_in_random_directions():
    kernel = kernel_of((1, 5, 12), -1)
    new, survivors, _ = drawn("orthogonal_to_survivors", kernel, -1, list(range(9)))
    assert cosines(new[:, :2], survivors).max() < 1e-5
    assert_orthogonal_to_one_another(new[:, :5])
    assert cosines(new, new)[np.triu_indices(9, 1)].max() < 0.999
    assert_norm_is_the_survivors_mean(new, survivors)


@pytest.mark.parametrize("fan_in", [1, 2])
@pytest.mark.parametrize("initializer", RULES)
def test_a_tiny_fan_in_is_no_obstacle(initializer, fan_in):
    kernel = kernel_of((1, fan_in, 6), -1)
    new, survivors, old = drawn(initializer, kernel, -1, [0, 2])
    assert np.isfinite(new).all()
    assert not np.isin(new, np.hstack([survivors, old])).any() or fan_in == 1


@pytest.mark.parametrize("base", ["xavier", "he", "minmax", "orthogonal_to_survivors"])
@pytest.mark.parametrize(("shape", "axis", "chosen"), ROOMY[:4])
def test_norm_matched_scales_each_filter_of_its_base(base, shape, axis, chosen):
    kernel = kernel_of(shape, axis)
    new, survivors, _ = drawn(NormMatched(base), kernel, axis, chosen, seed=3)
    unscaled = initializers.get(base)(kernel, axis, 3, mask_of(shape[axis], chosen))
    unscaled = columns(unscaled, axis)[:, chosen]
    assert_norm_is_the_survivors_mean(new, survivors)
    np.testing.assert_allclose(np.diagonal(cosines(new, unscaled)), 1, rtol=1e-6)
    assert (new * unscaled > 0).all()


def test_norm_matched_takes_xavier_where_no_base_is_named():
    kernel = kernel_of((3, 3, 4, 8), -1)
    named, by_class, with_base = (
        drawn(i, kernel, -1, [1])[0] for i in ("norm_matched", NormMatched, NormMatched("xavier"))
    )
    np.testing.assert_array_equal(named, by_class)
    np.testing.assert_array_equal(named, with_base)


def test_norm_matched_takes_an_instance_or_a_function_as_its_base():
    kernel = kernel_of((3, 3, 4, 8), -1)
    for base in (keras.initializers.HeNormal(seed=1), lambda k, axis, seed, chosen: k**2):
        assert_norm_is_the_survivors_mean(*drawn(NormMatched(base), kernel, -1, [1, 2])[:2])


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("none", "control="),
        ("xaver", "base must be one of"),
        ("zeros", "other numbers than zeros"),
        (keras.initializers.Zeros(), "other numbers than zeros"),
    ],
)
def test_norm_matched_refuses_a_base_that_draws_nothing(base, message):
    with pytest.raises(ValueError, match=message):
        NormMatched(base)


def xavier_columns(kernel, seed):
    return columns(keras.initializers.GlorotUniform(seed=seed)(kernel.shape), -1)


def test_clone_draws_xavier_weights_where_all_survivors_are_zero():
    kernel = tf.zeros((3, 4, 5))
    new, _, _ = drawn("clone", kernel, -1, [0, 3], seed=4)
    np.testing.assert_array_equal(new, xavier_columns(kernel, 4)[:, [0, 3]])


def test_clone_does_not_copy_a_survivor_that_is_zero():
    weights = kernel_of((3, 4, 5), -1).numpy()
    weights[..., [1, 2]] = 0
    for seed in range(4):
        new, survivors, _ = drawn(Clone(0.01), tf.constant(weights), -1, [0], seed)
        assert parents_of(new, survivors)[0] in (2, 3)


def test_norm_matched_keeps_its_base_where_all_survivors_are_zero():
    kernel = tf.zeros((3, 4, 5))
    new, _, _ = drawn(NormMatched("he"), kernel, -1, [0, 3], seed=4)
    base = columns(initializers.get("he")(kernel, -1, 4, mask_of(5, [0, 3])), -1)[:, [0, 3]]
    np.testing.assert_array_equal(new, base)


def test_norm_matched_draws_xavier_directions_where_its_base_draws_zeros():
    weights = kernel_of((3, 4, 5), -1).numpy()
    weights[..., 2] = 0  # so that minmax of it draws zeros
    new, survivors, _ = drawn(NormMatched("minmax"), tf.constant(weights), -1, [2, 3], seed=4)
    assert_norm_is_the_survivors_mean(new, survivors)
    xavier = xavier_columns(tf.constant(weights), 4)
    assert cosines(new[:, :1], xavier[:, 2:3])[0, 0] == pytest.approx(1)


def test_orthogonal_filters_have_the_norm_of_xavier_where_all_survivors_are_zero():
    kernel = tf.zeros((3, 4, 5))
    new, _, _ = drawn("orthogonal_to_survivors", kernel, -1, [0, 3], seed=4)
    assert_orthogonal_to_one_another(new)
    assert_norm_is_the_survivors_mean(new, xavier_columns(kernel, 4))


@pytest.mark.parametrize("initializer", RULES)
def test_a_layer_without_survivors_is_refused(initializer):
    with pytest.raises(ValueError, match="Received: all 5 as chosen"):
        drawn(initializer, kernel_of((3, 4, 5), -1), -1, list(range(5)))


def parents_of(new, survivors):
    return np.linalg.norm(new[:, :, None] - survivors[:, None, :], axis=0).argmin(axis=1)


@pytest.mark.parametrize("noise", [0.1, 0.01])
@pytest.mark.parametrize(("shape", "axis", "chosen"), ROOMY)
def test_clone_is_near_a_survivor_and_another(noise, shape, axis, chosen):
    new, survivors, _ = drawn(Clone(noise), kernel_of(shape, axis), axis, chosen)
    parents = survivors[:, parents_of(new, survivors)]
    off = (new - parents) / (noise * parents.std(axis=0))
    assert (new != parents).all()
    assert np.abs(off).max() < 6
    assert 0.5 < off.std() < 1.5


def test_clone_noise_is_gaussian_of_a_tenth_of_the_filters_deviation():
    kernel = kernel_of((9, 9, 40, 4), -1)
    new, survivors, _ = drawn("clone", kernel, -1, [2])
    parent = survivors[:, parents_of(new, survivors)]
    off = (new - parent) / parent.std()
    assert off.std() == pytest.approx(0.1, rel=0.05)
    assert abs(off.mean()) < 0.01
    assert (np.abs(off) > 0.1).mean() == pytest.approx(0.317, abs=0.03)


def test_no_survivor_is_cloned_twice_before_all_are_cloned_once():
    kernel = kernel_of((3, 3, 2, 10), -1)
    orders = set()
    for seed in range(8):
        few, survivors, _ = drawn(Clone(0.01), kernel, -1, [0, 1, 2, 3], seed)
        assert len(set(parents_of(few, survivors))) == 4
        orders.add(tuple(parents_of(few, survivors)))
        many, survivors, _ = drawn(Clone(0.01), kernel, -1, list(range(7)), seed)
        counts = np.bincount(parents_of(many, survivors), minlength=3)
        assert sorted(counts) == [2, 2, 3]
    assert len(orders) > 4


def test_clones_of_a_filter_of_equal_weights_are_no_twins():
    kernel = tf.ones((3, 3, 2, 4)) * 0.5
    new, _, _ = drawn("clone", kernel, -1, [1, 2])
    assert ((new - 0.5) / 0.05).std() == pytest.approx(1, rel=0.5)
    assert (new[:, 0] != new[:, 1]).all()


@pytest.mark.parametrize("noise", [-0.1, np.inf, np.nan, "0.1", None, np.ones(2)])
def test_clone_refuses_a_noise_out_of_range(noise):
    with pytest.raises(ValueError, match="noise must be"):
        Clone(noise)


@pytest.mark.parametrize("initializer", [*RULES, NormMatched("he"), Clone(0.3)], ids=str)
@pytest.mark.parametrize("chosen", [[1, 3], list(range(5))])
def test_draw_is_a_function_of_the_seed(initializer, chosen):
    kernel = kernel_of((2, 2, 2, 12), -1)
    before = kernel.numpy().copy()
    first, again, other = (drawn(initializer, kernel, -1, chosen, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5
    np.testing.assert_array_equal(kernel.numpy(), before)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("initializer", RULES)
def test_kernel_keeps_its_dtype(initializer, dtype):
    new, _, _ = drawn(initializer, tf.cast(kernel_of((3, 4, 6), -1), dtype), -1, [0, 1])
    assert np.isfinite(new).all()


def test_transposed_kernel_gets_what_the_kernel_with_its_filters_last_gets():
    kernel = kernel_of((3, 3, 6, 4), -2)
    for initializer in ("orthogonal_to_survivors", "clone"):
        new = drawn(initializer, kernel, -2, [1, 4])[0]
        swapped = drawn(initializer, tf.transpose(kernel, (0, 1, 3, 2)), -1, [1, 4])[0]
        np.testing.assert_array_equal(new, swapped)


CHOSEN = {"normed": [1], "flat": [0, 2], "up": [3, 4]}


@pytest.fixture
def net(randomized):
    return randomized(
        keras.Sequential(
            [
                keras.Input((6, 6, 3)),
                layers.Conv2D(5, 3, use_bias=False, name="normed"),
                layers.BatchNormalization(name="norm"),
                layers.Conv2DTranspose(6, 3, activation="relu", name="up"),
                layers.Reshape((36, 6)),
                layers.Conv1D(4, 3, name="flat"),
                layers.Flatten(),
                layers.Dense(3, name="logits"),
            ]
        )
    )


@pytest.mark.parametrize("initializer", [*RULES, NormMatched("he_normal"), Clone(0.5)], ids=str)
def test_restarted_model_has_new_filters_and_all_else_bit_for_bit(initializer, net):
    axes = {"normed": -1, "flat": -1, "up": -2}
    before = {w.path: w.numpy() for w in net.weights}
    kr.restart_filters(net, CHOSEN, initializer=initializer, seed=2)
    for layer in net.layers:
        owner = "normed" if layer.name == "norm" else layer.name
        for weight in layer.weights:
            old, new = before[weight.path], weight.numpy()
            axis = axes.get(owner, -1) if weight.name == "kernel" else -1
            mask = mask_of(old.shape[axis], CHOSEN.get(owner, []))
            old, new = (np.moveaxis(w, axis, -1) for w in (old, new))
            np.testing.assert_array_equal(new[..., ~mask], old[..., ~mask], err_msg=weight.path)
            if weight.name == "kernel":
                assert (new[..., mask] != old[..., mask]).all()
    if isinstance(initializer, str) and initializer.startswith("orthogonal"):
        for name, chosen in CHOSEN.items():
            kernel = columns(net.get_layer(name).kernel, axes[name])
            mask = mask_of(kernel.shape[1], chosen)
            assert cosines(kernel[:, mask], kernel[:, ~mask]).max() < 1e-5


@pytest.mark.parametrize("initializer", RULES)
@pytest.mark.parametrize("outgoing", ["keep", "zero"])
def test_a_layer_of_zeros_restarts_in_the_middle_of_training(initializer, outgoing, net):
    layer = net.get_layer("flat")
    layer.kernel.assign(np.zeros((3, 6, 4)))
    kr.restart_filters(net, {"flat": [0, 2]}, initializer=initializer, outgoing=outgoing)
    assert layer.kernel.numpy()[..., [0, 2]].all()
    assert not layer.kernel.numpy()[..., [1, 3]].any()
