import subprocess
import sys

import keras
import pytest

from kerasrestart.restart.initializer_names import INITIALIZERS
from kerasrestart.restart.reset import Reset


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"initializer": "unifrom"}, "'unifrom'"),
        ({"initializer": 3}, "3"),
        ({"initializer": None}, r"PartialRestart\(control='none'\)\. Received: None"),
        ({"initializer": "none"}, r"PartialRestart\(control='none'\)\. Received: 'none'"),
        ({"initializer": "slots"}, r"PartialRestart\(control='slots'\)\. Received: 'slots'"),
        ({"outgoing": "loose"}, r"outgoing must be one of \['keep', 'zero'\]. Received: 'loose'"),
        ({"second_moment": "mean"}, "second_moment must be one of"),
        ({"norms": 1}, "norms must be True or False"),
        ({"compensate_bias": True}, "outgoing must be 'zero' beside .* Received: outgoing='keep'"),
        ({"grace_restarts": -1}, "grace_restarts must be a whole number, 0 or more"),
        ({"initializer": "zeros", "outgoing": "zero"}, "never learn again"),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused_at_once_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        Reset(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "initializer", [keras.initializers.HeNormal(), "HeUniform", lambda shape, dtype: None]
)
def test_what_keras_takes_is_an_initializer(initializer):
    assert Reset(initializer).initializer is initializer


@pytest.mark.parametrize("name", INITIALIZERS)
def test_each_name_is_known_to_the_initializers(name):
    from kerasrestart.restart import initializers

    assert callable(initializers.get(name))
    Reset(name)


def test_filters_have_a_grace_period_only_without_outgoing_weights():
    assert Reset(grace_restarts=2).grace == 0
    assert Reset(outgoing="zero", grace_restarts=2).grace == 2


def test_the_parts_check_their_arguments_without_tensorflow_or_keras():
    code = """
import sys
import kerasrestart as kr
kr.Fraction(0.1), kr.BelowMean(0.1, cap=0.5), kr.GlobalFraction(0.1, normalize="l2")
kr.OnPlateau("val_accuracy", patience=3), kr.EveryEpochs(15)
kr.Reset("he_uniform", outgoing="zero"), kr.Scoring("reversed_taylor", every=8)
from kerasrestart.restart.plan import RestartPlan
RestartPlan(select=kr.Fraction(0.2), control="none")
print([name for name in ("tensorflow", "keras") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
