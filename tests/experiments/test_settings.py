"""The flags of a run: whatever is typed is taken or refused, and never a traceback."""

import dataclasses
import functools
import math

import keras
import pytest
from absl import flags
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from kerasrestart.experiments import run_flags, settings
from kerasrestart.experiments.run.build import restart_callback

NAMES = list(settings.RunSettings.__dataclass_fields__)
ODD = ["", "0", "-0", "-1", "2", "1e400", "nan", "inf", "-inf", "None", "true", "0x10", "1_0", "("]
TYPED = st.one_of(
    st.text(max_size=12), st.integers().map(str), st.floats().map(str), st.sampled_from(ODD)
)
SHARES = ("label_noise", "warm_start_fraction", "fraction", "threshold", "cap", "momentum")


def parsed(*arguments):
    return run_flags.parse_settings(arguments)


def check(typed):
    """What is typed is refused by the flag's name, or taken with sense."""
    try:
        chosen = parsed(*(f"--{name}={value}" for name, value in typed.items()))
    except flags.Error as error:
        assert any(f"--{name}" in str(error) for name in typed)  # noqa: PT017 - either is right
        return
    for name, value in chosen.to_dict().items():
        if isinstance(value, float):
            assert math.isfinite(value), name
            assert name == "target" or value >= 0, name
            assert name not in SHARES or value <= 1, name
    # What was taken comes back by the flagfile that the run writes.
    lines = [
        settings.as_flag(name, value)
        for name, value in chosen.to_dict().items()
        if value is not None
    ]
    assert parsed(*lines) == chosen


@pytest.mark.parametrize("name", NAMES)
def test_an_odd_value_of_any_flag_is_taken_as_it_is_meant_or_refused(name):
    for value in ODD:
        check({name: value})


@given(st.dictionaries(st.sampled_from(NAMES), TYPED, max_size=3))
@hypothesis_settings(max_examples=300, deadline=None)
def test_any_values_are_taken_as_they_are_meant_or_refused(typed):
    check(typed)


RESTARTS = {
    "init": ["uniform", "none", "slots", "zeros", "clone"],
    "criterion": ["taylor", "reversed_taylor", "reversed_random"],
    "fraction": [None, 0.25],
    "threshold": [None, 0.5],
    "scope": ["layer", "global"],
    "cap": [None, 0.0, 0.5, 1.0],
    "normalize": ["none", "l2"],
    "outgoing": ["keep", "zero"],
    "compensate_bias": [False, True],
}


@functools.cache
def network():
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


@given(st.fixed_dictionaries({name: st.sampled_from(values) for name, values in RESTARTS.items()}))
@hypothesis_settings(max_examples=150, deadline=None)
def test_flags_of_a_restart_are_refused_where_the_callback_refuses_them(options):
    """Not later: what the flags take, the callback and a network with room for it take."""
    typed = {name: value for name, value in options.items() if value is not None}
    told = ""
    try:
        chosen = parsed(*(settings.as_flag(name, value) for name, value in typed.items()))
    except flags.Error as error:
        told = str(error)
    if not told:
        restart_callback(chosen).check(network())
        return
    assert "\n" not in told
    assert any(f"--{name}" in told for name in typed)
    with pytest.raises(ValueError, match=r"[Rr]eceived"):
        restart_callback(dataclasses.replace(parsed(), **options))


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_a_flag_that_tells_what_it_does(name):
    values = flags.FlagValues()
    run_flags.define_flags(values)
    assert len(values[name].help.strip()) > 10


def test_differences_name_the_flags_and_both_values():
    one, other = parsed(), parsed("--seed=3", "--data_dir=elsewhere", "--augment")
    assert other.differences(one.to_dict(), settings.IGNORED_ON_RESUME) == [
        "--augment was False, is True",
        "--seed was 0, is 3",
    ]
    older = one.to_dict()
    del older["on_nan"]  # a record of a version that had no such flag
    assert one.differences(older) == []


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "a/b", "/a", "a\\b", "a\nb", "", "-a", "ä"])
def test_a_name_that_could_lead_elsewhere_is_no_plain_name(name):
    assert not settings.is_plain_name(name)
    assert settings.is_plain_name("mininet-uniform_0.1+x=2")
