"""Selections against plain Python, on scores with many ties."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kerasrestart.restart.select import BelowMean, Fraction, GlobalFraction
from kerasrestart.restart.select_filters import choose, select_filters

# Few different scores, so that there are ties.
SCORES = st.lists(st.integers(0, 4).map(lambda n: n / 3), min_size=2, max_size=70)
LAYERS = st.dictionaries(
    st.sampled_from(["conv1", "conv2", "conv3", "head"]), SCORES, min_size=1, max_size=4
)
FRACTIONS = st.floats(0.01, 0.99)


def arrays(layers):
    return {name: np.array(of_layer, "float32") for name, of_layer in layers.items()}


def lists(chosen):
    return {name: filters.tolist() for name, filters in chosen.items()}


def most_of(count, cap, min_survivors):
    """The most filters that a layer may give, by trying."""
    return max(
        k
        for k in range(count + 1)
        if k == 0 or (k <= cap * count + 1e-9 and count - k >= min_survivors)
    )


@given(scores=SCORES, fraction=FRACTIONS)
def test_fraction_selects_exactly_k_lowest_with_ties_in_order_of_index(scores, fraction):
    k = int(fraction * len(scores) + 0.5)
    layers = arrays({"layer": scores})
    if k in (0, len(scores)):
        with pytest.raises(ValueError, match="selects"):
            Fraction(fraction)(layers)
        return
    by_score = sorted((score, index) for index, score in enumerate(scores))
    chosen = Fraction(fraction)(layers)["layer"]
    assert chosen.tolist() == sorted(index for _, index in by_score[:k])
    assert chosen.dtype == np.int64


def test_equal_scores_are_selected_in_order_of_index():
    # More than 16, where numpy's default sort no longer keeps the order.
    assert lists(Fraction(0.3)({"layer": np.zeros(100)})) == {"layer": list(range(30))}


@pytest.mark.parametrize(
    ("fraction", "filters", "k"),
    [(0.1, 32, 3), (0.1, 64, 6), (0.1, 5, 1), (0.1, 4, 0), (0.5, 3, 2), (0.25, 10, 3)],
)
def test_a_fraction_is_rounded_to_the_nearest(fraction, filters, k):
    chosen = Fraction(fraction)({"layer": np.arange(filters), "wide": np.arange(64)})
    assert len(chosen.get("layer", ())) == k


def selected_globally(layers, fraction, cap, normalize, min_survivors):
    """By brute force; None where there are too few to select from."""
    pool = []
    for place, (name, of_layer) in enumerate(layers.items()):
        of_layer = np.array(of_layer, "float32").astype("float64")
        divisor = {
            "l2": sum(score**2 for score in of_layer) ** 0.5,
            "mean": sum(abs(score) for score in of_layer) / len(of_layer),
        }.get(normalize, 1)
        pool += [
            (float(score / (divisor or 1)), place, index, name)
            for index, score in enumerate(of_layer)
        ]
    k = int(fraction * len(pool) + 0.5)
    chosen = {name: [] for name in layers}
    for _, _, index, name in sorted(pool):
        enough = sum(map(len, chosen.values())) == k
        if not enough and len(chosen[name]) < most_of(len(layers[name]), cap, min_survivors):
            chosen[name].append(index)
    if k == 0 or sum(map(len, chosen.values())) < k:
        return None
    return {name: sorted(filters) for name, filters in chosen.items() if filters}


@given(
    layers=LAYERS,
    fraction=FRACTIONS,
    cap=st.sampled_from([0.2, 0.29, 0.5, 1.0]),
    min_survivors=st.integers(1, 5),
)
def test_global_fraction_selects_the_lowest_of_all_layers(layers, fraction, cap, min_survivors):
    select = GlobalFraction(fraction, cap, min_survivors=min_survivors)
    expected = selected_globally(layers, fraction, cap, None, min_survivors)
    if expected is None:
        with pytest.raises(ValueError, match="fraction must be") as error:
            select(arrays(layers))
        assert "\n" not in str(error.value)
        return
    assert lists(select(arrays(layers))) == expected


@pytest.mark.parametrize("normalize", ["l2", "mean"])
@pytest.mark.parametrize("sign", [1, -1])
def test_normalized_global_fraction_is_that_of_brute_force(normalize, sign):
    rng = np.random.default_rng(0)
    layers = {
        name: (sign * scale * (0.2 + rng.random(filters))).tolist()
        for name, scale, filters in [("a", 1, 9), ("b", 50, 20)]
    }
    expected = selected_globally(layers, 0.4, 0.5, normalize, 1)
    assert len(expected) == 2
    assert lists(GlobalFraction(0.4, normalize=normalize)(arrays(layers))) == expected
    unnormalized = GlobalFraction(0.2, cap=1.0)(arrays(layers))
    assert list(unnormalized) == (["a"] if sign > 0 else ["b"])


@given(
    layers=LAYERS,
    fraction=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    cap=st.sampled_from([0.3, 1.0]),
    min_survivors=st.integers(1, 3),
)
def test_below_mean_selects_what_is_low_beside_the_mean(layers, fraction, cap, min_survivors):
    expected = {}
    for name, of_layer in layers.items():
        of_layer = np.float32(of_layer).tolist()
        mean = sum(of_layer) / len(of_layer)
        if any(0 < abs(score / (mean or 1) - fraction) < 1e-12 for score in of_layer):
            return  # on which side of the bound is a matter of rounding
        low = [
            (score, index)
            for index, score in enumerate(of_layer)
            if mean == 0 or score / mean <= fraction
        ]
        count = most_of(len(of_layer), cap, min_survivors)
        if low[:count]:
            expected[name] = sorted(index for _, index in sorted(low)[:count])
    assert lists(BelowMean(fraction, cap, min_survivors)(arrays(layers))) == expected


def test_below_mean_may_select_nothing_and_spares_survivors_of_a_dead_layer():
    assert BelowMean(0.5)({"layer": np.ones(8)}) == {}
    chosen = BelowMean(0.0, min_survivors=3)({"dead": np.zeros(8)})
    assert lists(chosen) == {"dead": [0, 1, 2, 3, 4]}


@example(scores=[0.0, 0.0], exclude={0}, select=BelowMean(0.8))
@given(
    scores=SCORES,
    exclude=st.sets(st.integers(0, 69)),
    select=st.sampled_from([Fraction(0.3), BelowMean(0.8), GlobalFraction(0.3, cap=0.9)]),
)
def test_excluded_filters_are_not_selected_and_the_next_lowest_are(scores, exclude, select):
    layers = {"layer": np.array(scores)}
    exclude = {k for k in exclude if k < len(scores)}
    try:
        without = select(layers).get("layer", [])
    except ValueError:
        return  # too few filters for the selection
    chosen = list(select(layers, {"layer": exclude}).get("layer", []))
    ranked = sorted(range(len(scores)), key=lambda k: (scores[k], k))
    order = [k for k in ranked if k not in exclude]
    if isinstance(select, BelowMean) and any(scores):
        assert set(chosen) == set(without) - exclude
    elif isinstance(select, BelowMean):  # all are useless, and one stays: an excluded one too
        assert chosen == sorted(order[: len(scores) - 1])
    else:
        assert chosen == sorted(order[: len(without)])


@pytest.mark.parametrize(
    ("part", "arguments", "message"),
    [
        (Fraction, {"fraction": 0}, r"fraction must be .* both excluded\. Received: 0"),
        (Fraction, {"fraction": 1.0}, "fraction must be"),
        (Fraction, {"fraction": float("nan")}, "fraction must be"),
        (Fraction, {"fraction": "0.1"}, "Received: '0.1'"),
        (Fraction, {"min_survivors": 0}, "min_survivors must be a whole number, 1 or more"),
        (Fraction, {"min_survivors": 1.5}, "min_survivors must be"),
        (BelowMean, {"fraction": -0.1}, "fraction must be .* both included"),
        (BelowMean, {"fraction": 1.1}, "fraction must be"),
        (BelowMean, {"cap": 0.0}, "cap must be a number above 0 and at most 1"),
        (BelowMean, {"min_survivors": 0}, "min_survivors must be"),
        (GlobalFraction, {"fraction": 1}, "fraction must be"),
        (GlobalFraction, {"cap": 1.5}, "cap must be"),
        (GlobalFraction, {"normalize": "max"}, r"normalize must be one of \[None, 'l2', 'mean'\]"),
    ],
)
def test_arguments_out_of_range_are_refused_at_once_in_one_line(part, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        part(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("select", "message"),
    [
        (
            Fraction(0.5, min_survivors=6),
            "as min_survivors=6: it selects 5 of the 10 filters of layer 'conv'",
        ),
        (Fraction(0.01), "must be 0.05 or more, or it selects no filter of any layer"),
        (GlobalFraction(0.9), "13 of 14 filters, and cap=0.5.*allow 7"),
        (GlobalFraction(0.01), "must be 0.036 or more, or it selects none of the 14"),
    ],
    ids=str,
)
def test_a_selection_that_a_model_cannot_give_is_refused_before_there_are_scores(select, message):
    with pytest.raises(ValueError, match=message) as error:
        select.check({"conv": 10, "small": 4})
    assert "\n" not in str(error.value)


def test_the_fraction_that_an_error_names_can_be_selected():
    Fraction(0.05).check({"conv": 10, "small": 4})
    GlobalFraction(0.036).check({"conv": 10, "small": 4})


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("select", [Fraction(0.1), BelowMean(0.1), GlobalFraction(0.1)], ids=str)
def test_a_score_that_is_not_finite_is_refused_in_one_line(select, value):
    scores = np.arange(64.0)
    scores[5] = value
    with pytest.raises(ValueError, match="1 of 64 scores of layer 'layer' are not") as error:
        select({"layer": scores})
    assert "\n" not in str(error.value)


def test_below_mean_refuses_negative_scores():
    with pytest.raises(ValueError, match="layer 'layer' has -7"):
        BelowMean(0.1)({"layer": -np.arange(8.0)})


# `select_filters`, and custom functions.

LAYER = {"layer": np.arange(8.0), "other": np.arange(4.0)}


def test_short_and_long_form_select_the_same():
    assert lists(select_filters(LAYER)) == {"layer": [0]}
    assert lists(select_filters(LAYER, fraction=0.3)) == {"layer": [0, 1], "other": [0]}
    assert lists(select_filters(LAYER, Fraction(0.3))) == {"layer": [0, 1], "other": [0]}
    assert lists(select_filters(LAYER, lambda scores: {"other": [3, 1]})) == {"other": [1, 3]}
    with pytest.raises(
        ValueError, match=r"one of them must be left out\. Received: fraction=0.1, select="
    ):
        select_filters(LAYER, Fraction(0.1), fraction=0.1)
    for scores in ([1.0, 2.0], {}):
        with pytest.raises(ValueError, match="scores must be "):
            select_filters(scores)
    with pytest.raises(ValueError, match="scores of 'a' must be a list of finite numbers"):
        select_filters({"a": np.array([np.nan, 1.0])}, fraction=0.5)
    with pytest.raises(ValueError, match="scores of 'a' must be a list of finite numbers") as error:
        select_filters({"a": np.zeros((30, 4))}, fraction=0.5)
    assert len(str(error.value)) < 300
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"conv": [0]}, r"scores, of \['layer', 'other'\]\. Received: 'conv'"),
        ({"layer": [8]}, "indices from 0 to 7 for layer 'layer'"),
        ({"layer": [-1]}, "indices from 0 to 7"),
        ({"layer": [0.5]}, "indices from 0 to 7"),
        ({"layer": 3}, "indices from 0 to 7"),
        ({"layer": [1, 1]}, "each filter of layer 'layer' once"),
        ({"layer": range(8)}, "at least one of the 8 filters"),
        ([0, 1], r"return \{layer: indices\}"),
    ],
    ids=str,
)
def test_what_an_own_function_returns_is_checked_in_one_line(result, message):
    with pytest.raises(ValueError, match=message) as error:
        choose(lambda scores: result, LAYER)
    assert "\n" not in str(error.value)


def test_excluded_filters_are_removed_from_what_an_own_function_returns_unless_it_sees_them():
    exclude = {"layer": {0, 1}}
    assert lists(choose(lambda scores: {"layer": [0, 2]}, LAYER, exclude)) == {"layer": [2]}

    def next_two(scores, exclude):
        return {"layer": [k for k in range(8) if k not in exclude["layer"]][:2]}

    assert lists(choose(next_two, LAYER, exclude)) == {"layer": [2, 3]}


@pytest.mark.parametrize("select", [0.1, Fraction, "fraction"], ids=str)
def test_what_cannot_select_is_refused(select):
    with pytest.raises(ValueError, match="select must be Fraction, BelowMean"):
        select_filters(LAYER, select)
