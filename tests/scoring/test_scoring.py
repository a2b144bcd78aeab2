import numpy as np
import pytest

from kerasrestart.scoring import criteria
from kerasrestart.scoring.criterion_names import CRITERIA
from kerasrestart.scoring.scoring import Scoring


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"criterion": "taylr"}, "criterion must be one of .* Received: 'taylr'"),
        ({"criterion": None}, "criterion must be one of .* Received: None"),
        ({"every": 0}, "every must be a whole number, 1 or more. Received: 0"),
        ({"every": 1.5}, "every must be"),
        ({"window": 0}, "window must be a whole number, 1 or more. Received: 0"),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        Scoring(**arguments)


def test_whole_numbers_of_any_kind_are_accepted():
    assert Scoring(every=np.int64(4), window=np.int32(2)) == Scoring(every=4, window=2)


def test_the_names_are_those_of_the_criteria():
    assert sorted(CRITERIA) == sorted(
        prefix + name for name in criteria.CRITERIA for prefix in ("", "reversed_")
    )
    for name in CRITERIA:
        assert Scoring(name).is_reversed is criteria.get(name).reversed


def test_a_criterion_of_ones_own_may_be_reversed():
    assert Scoring(criteria.get("taylor").reverse()).is_reversed
    assert not Scoring(lambda z, gradient, axis: z).is_reversed
