import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasrestart.restart.ranking import filter_count
from kerasrestart.restart.select_filters import select_filters
from kerasrestart.restart.selection import Selection

# Few different scores, so that there are ties.
SCORES = st.lists(st.integers(0, 4).map(lambda n: n / 3), min_size=2, max_size=70)


@given(scores=SCORES, fraction=st.floats(0.01, 0.99))
def test_selects_exactly_k_lowest_with_ties_in_order_of_index(scores, fraction):
    k = int(fraction * len(scores) + 0.5)
    layers = {"layer": np.array(scores, "float32")}
    if k in (0, len(scores)):
        with pytest.raises(ValueError, match="selects"):
            select_filters(layers, fraction=fraction)
        return
    by_score = sorted((score, index) for index, score in enumerate(scores))
    expected = sorted(index for _, index in by_score[:k])
    chosen = select_filters(layers, fraction=fraction)["layer"]
    assert chosen.tolist() == expected
    assert np.issubdtype(chosen.dtype, np.integer)


def test_equal_scores_are_taken_in_order_of_index():
    # More than 16, where numpy's default sort no longer keeps the order.
    chosen = select_filters({"layer": np.zeros(100)}, fraction=0.3)
    assert chosen["layer"].tolist() == list(range(30))


@pytest.mark.parametrize(
    ("fraction", "filters", "k"),
    [(0.1, 32, 3), (0.1, 64, 6), (0.1, 5, 1), (0.1, 4, 0), (0.5, 3, 2), (0.25, 10, 3)],
)
def test_share_is_rounded_to_the_nearest(fraction, filters, k):
    assert filter_count(fraction, filters) == k


def test_each_layer_gives_its_own_share_and_small_ones_none():
    rng = np.random.default_rng(0)
    scores = {"wide": rng.random(64), "small": rng.random(4), "narrow": 9 + rng.random(16)}
    chosen = select_filters(scores, fraction=0.1)
    assert {name: len(of_layer) for name, of_layer in chosen.items()} == {"wide": 6, "narrow": 2}


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match="fraction must lie between 0 and 1"):
        select_filters({"layer": np.arange(8)}, fraction=fraction)


def test_fraction_that_selects_nothing_says_what_would():
    with pytest.raises(ValueError, match="no filter of any layer") as error:
        Selection(0.01).check({"small": 4, "large": 16})
    raise_to = float(str(error.value).split("raise it to ")[1].split(" ")[0])
    Selection(raise_to).check({"small": 4, "large": 16})


def test_fraction_that_selects_a_whole_layer_names_it():
    with pytest.raises(ValueError, match="all 2 filters of layer 'tiny'"):
        Selection(0.8).check({"wide": 64, "tiny": 2})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_score_that_is_not_finite_is_refused_in_one_line(value):
    scores = np.arange(64.0)
    scores[5] = value
    with pytest.raises(ValueError, match="'layer' are not finite") as error:
        select_filters({"layer": scores}, fraction=0.1)
    assert "\n" not in str(error.value)


# Selection by other rules, against plain Python.

LAYERS = st.dictionaries(
    st.sampled_from(["conv1", "conv2", "conv3", "head"]), SCORES, min_size=1, max_size=4
)
SHARES = st.floats(0.01, 0.99)


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
    fraction=SHARES,
    cap=st.sampled_from([0.2, 0.29, 0.5, 1.0]),
    normalize=st.sampled_from([None, "none"]),
    min_survivors=st.integers(1, 5),
)
def test_global_selection_takes_the_lowest_of_all_layers(
    layers, fraction, cap, normalize, min_survivors
):
    rule = Selection(
        fraction, scope="global", cap=cap, normalize=normalize, min_survivors=min_survivors
    )
    expected = selected_globally(layers, fraction, cap, normalize, min_survivors)
    if expected is None:
        with pytest.raises(ValueError, match="fraction=") as error:
            rule.select(arrays(layers))
        assert "\n" not in str(error.value)
        return
    chosen = rule.select(arrays(layers))
    assert lists(chosen) == expected
    total = sum(map(len, layers.values()))
    assert sum(map(len, chosen.values())) == int(fraction * total + 0.5)
    for name, filters in chosen.items():
        assert len(filters) <= cap * len(layers[name]) + 1e-9
        assert len(layers[name]) - len(filters) >= min_survivors
        assert filters.dtype == np.int64


@pytest.mark.parametrize("normalize", ["l2", "mean"])
@pytest.mark.parametrize("sign", [1, -1])
def test_normalized_global_selection_is_that_of_brute_force(normalize, sign):
    rng = np.random.default_rng(0)
    layers = {
        name: (sign * scale * (0.2 + rng.random(filters))).tolist()
        for name, scale, filters in [("a", 1, 9), ("b", 50, 20)]
    }
    expected = selected_globally(layers, 0.4, 0.5, normalize, 1)
    assert len(expected) == 2
    chosen = select_filters(arrays(layers), fraction=0.4, scope="global", normalize=normalize)
    assert lists(chosen) == expected
    unnormalized = select_filters(arrays(layers), fraction=0.2, scope="global", cap=1)
    assert list(unnormalized) == (["a"] if sign > 0 else ["b"])


@given(layers=LAYERS, shares=st.tuples(SHARES, SHARES), scope=st.sampled_from(["layer", "global"]))
def test_a_larger_fraction_selects_all_that_a_smaller_does(layers, shares, scope):
    try:
        less, more = (
            select_filters(arrays(layers), fraction=share, scope=scope) for share in sorted(shares)
        )
    except ValueError:
        return
    for name, filters in less.items():
        assert set(filters) <= set(more[name])


@given(
    layers=LAYERS,
    threshold=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    cap=st.sampled_from([None, 0.3, 1.0]),
    min_survivors=st.integers(1, 3),
)
def test_threshold_takes_what_is_low_against_the_mean(layers, threshold, cap, min_survivors):
    expected = {}
    for name, of_layer in layers.items():
        mean = sum(np.float32(of_layer).tolist()) / len(of_layer)
        low = [
            (score, index)
            for index, score in enumerate(np.float32(of_layer).tolist())
            if mean == 0 or score / mean <= threshold
        ]
        count = most_of(len(of_layer), cap or 1.0, min_survivors)
        if low[:count]:
            expected[name] = sorted(index for _, index in sorted(low)[:count])
    rule = {"threshold": threshold, "cap": cap, "min_survivors": min_survivors}
    if any(
        0 < abs(score / np.mean(np.float32(of_layer), dtype="float64") - threshold) < 1e-12
        for of_layer in layers.values()
        if any(of_layer)
        for score in np.float32(of_layer)
    ):
        return  # on which side of the threshold is a matter of rounding
    assert lists(select_filters(arrays(layers), **rule)) == expected


def test_threshold_that_no_score_is_below_selects_nothing():
    assert select_filters({"layer": np.ones(8)}, threshold=0.5) == {}


def test_threshold_on_a_dead_layer_spares_the_survivors():
    chosen = select_filters({"dead": np.zeros(8)}, threshold=0.0, min_survivors=3)
    assert chosen["dead"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["conv1", "head"], ["conv1", "head"]),
        (["head", "conv1"], ["conv1", "head"]),
        (r"conv\d", ["conv1", "conv2"]),
        ("conv1|head", ["conv1", "head"]),
        ("conv2", ["conv2"]),
        (None, ["conv1", "conv2", "head"]),
    ],
)
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_only_the_layers_that_are_named_take_part(layers, expected, scope):
    scores = {"conv1": np.arange(8), "conv2": np.arange(8), "head": np.arange(8)}
    for name in set(scores) - set(expected):
        scores[name] = np.full(8, np.nan)
    assert list(select_filters(scores, fraction=0.5, layers=layers, scope=scope)) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fraction": 0.1, "threshold": 0.1}, "expected one of them"),
        ({"fraction": "0.1"}, "fraction must lie"),
        ({"threshold": -0.1}, "threshold must lie"),
        ({"threshold": 1.1}, "threshold must lie"),
        ({"threshold": float("nan")}, "threshold must lie"),
        ({"threshold": 0.1, "scope": "global"}, "expected scope='layer'"),
        ({"scope": "network"}, "scope must be one of"),
        ({"cap": 0.5}, "expected no cap"),
        ({"cap": 0.0, "scope": "global"}, "cap must be above 0"),
        ({"cap": 1.5, "threshold": 0.1}, "cap must be above 0"),
        ({"normalize": "l2"}, "expected scope='global'"),
        ({"normalize": "max", "scope": "global"}, "normalize must be one of"),
        ({"min_survivors": 0}, "min_survivors must be 1 or more"),
        ({"min_survivors": 1.5}, "min_survivors must be 1 or more"),
        ({"layers": "con("}, "regular expression"),
        ({"layers": []}, "one at least"),
        ({"layers": [1]}, "list of names"),
        ({"layers": 3}, "list of names"),
    ],
    ids=str,
)
def test_arguments_that_make_no_rule_are_refused_at_once_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        Selection(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": ["conv", "con"]}, "'con'.*none of the layers"),
        ({"layers": "onv"}, "matches the whole name of no layer"),
        ({"fraction": 0.5, "min_survivors": 6}, "5 of the 10 filters of layer 'conv'.*=6 are kept"),
        ({"fraction": 0.9, "scope": "global"}, "13 of 14.*cap=0.5.*leave 7"),
        ({"fraction": 0.01, "scope": "global"}, "none of the 14"),
    ],
    ids=str,
)
def test_a_rule_that_a_network_cannot_follow_is_refused_before_there_are_scores(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        Selection(**arguments).check({"conv": 10, "small": 4})
    assert "\n" not in str(error.value)


def test_threshold_on_negative_scores_is_refused():
    with pytest.raises(ValueError, match="layer 'layer' has -7"):
        select_filters({"layer": -np.arange(8.0)}, threshold=0.1)


def test_selection_is_a_value():
    assert Selection() == Selection(0.1)
    assert Selection(layers=["a"]) == Selection(layers=("a",))
    assert hash(Selection(layers=["a"])) == hash(Selection(layers=["a"]))
    assert Selection(threshold=0.1).fraction is None
    assert Selection(scope="global").cap == 0.5


@given(
    scores=SCORES,
    spared=st.sets(st.integers(0, 69)),
    rule=st.sampled_from(
        [{"fraction": 0.3}, {"threshold": 0.8}, {"fraction": 0.3, "scope": "global", "cap": 0.9}]
    ),
)
def test_spared_filters_are_not_selected_and_the_next_ones_are(scores, spared, rule):
    scores = np.array(scores)
    spared = {k for k in spared if k < len(scores)}
    selection = Selection(**rule)
    try:
        without = selection.select({"layer": scores}).get("layer", [])
    except ValueError:
        return  # too few filters for the rule
    chosen = selection.select({"layer": scores}, {"layer": spared}).get("layer", [])
    order = [k for k in sorted(range(len(scores)), key=lambda k: (scores[k], k)) if k not in spared]
    if "threshold" in rule:
        assert set(chosen) == set(without) - spared
    else:
        assert sorted(order[: len(without)]) == list(chosen)
