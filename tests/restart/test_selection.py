import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasrestart.restart.selection import check_fraction, filters_in, select_filters

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
    assert filters_in(fraction, filters) == k


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
        check_fraction(0.01, {"small": 4, "large": 16})
    raise_to = float(str(error.value).split("raise it to ")[1].split(" ")[0])
    check_fraction(raise_to, {"small": 4, "large": 16})


def test_fraction_that_selects_a_whole_layer_names_it():
    with pytest.raises(ValueError, match="all 2 filters of layer 'tiny'"):
        check_fraction(0.8, {"wide": 64, "tiny": 2})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_score_that_is_not_finite_is_refused_in_one_line(value):
    scores = np.arange(64.0)
    scores[5] = value
    with pytest.raises(ValueError, match="'layer' are not finite") as error:
        select_filters({"layer": scores}, fraction=0.1)
    assert "\n" not in str(error.value)
