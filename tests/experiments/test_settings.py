"""The table of settings: every value is accepted as it is meant, or refused by the flag's name."""

import dataclasses
import inspect
import math

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from kerasrestart.experiments.setting import Setting, SettingError
from kerasrestart.experiments.settings import (
    AFTER_BASELINE,
    SETTINGS,
    RunSettings,
    is_plain_name,
)
from kerasrestart.restart.callback import PartialRestart
from kerasrestart.restart.reset import Reset
from kerasrestart.restart.select import BelowMean, Fraction, GlobalFraction
from kerasrestart.restart.when import EveryEpochs, OnPlateau
from kerasrestart.scoring.scoring import Scoring
from tests.typed_settings import parse_settings

ODD = ["", "0", "-0", "-1", "2", "1e400", "nan", "inf", "-inf", "None", "true", "0x10", "1_0", "("]
TYPED = st.one_of(
    st.text(max_size=12), st.integers().map(str), st.floats().map(str), st.sampled_from(ODD)
)
FRACTIONS = ("label_noise", "warm_start_fraction", "fraction", "cap", "momentum")


def check(typed):
    """What is typed is refused by the flag's name, or makes sense."""
    message = ""
    try:
        settings = parse_settings(f"--{name}={value}" for name, value in typed.items())
    except SettingError as error:
        message = str(error)
    if message:
        assert any(f"--{name}" in message for name in typed)
        assert "\n" not in message
        return
    for name, value in settings.to_dict().items():
        if isinstance(value, float):
            assert math.isfinite(value), name
            assert name == "target" or value >= 0, name
            assert name not in FRACTIONS or value <= 1, name
    assert parse_settings(settings.to_flags()) == settings


@pytest.mark.parametrize("name", SETTINGS)
def test_an_odd_value_of_any_flag_is_accepted_as_it_is_meant_or_refused(name):
    for value in ODD:
        check({name: value})


@given(st.dictionaries(st.sampled_from(list(SETTINGS)), TYPED, max_size=3))
@hypothesis_settings(max_examples=200, deadline=None)
def test_any_values_are_accepted_as_they_are_meant_or_refused(typed):
    check(typed)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_error_comes_from_a_flag_and_from_python(name):
    wrong = {int: 1.5, float: "0.5", bool: "yes", str: 3}[SETTINGS[name].type]
    with pytest.raises(SettingError, match=f"--{name} must be .* Received: {wrong!r}"):
        RunSettings(**{name: wrong})


def test_a_setting_has_the_default_of_the_librarys_argument():
    flag_of = {setting.argument or name: name for name, setting in SETTINGS.items()}
    seen = set()
    for part in (Fraction, GlobalFraction, BelowMean, OnPlateau, EveryEpochs, Reset, Scoring):
        for field in dataclasses.fields(part):
            # These two have one flag for parts that differ.
            if field.default is not dataclasses.MISSING and field.name not in ("cap", "normalize"):
                name = flag_of.get(field.name)
                if name is not None:
                    assert SETTINGS[name].default == field.default, name
                    seen.add(name)
    for argument in inspect.signature(PartialRestart).parameters.values():
        if argument.name in ("monitor", "patience", "seed", "stop_on_repeat"):
            assert SETTINGS[argument.name].default == argument.default
            seen.add(argument.name)
    assert seen >= {"init", "fraction", "patience", "learning_rate_drops", "norms", "score_every"}


def test_settings_before_the_first_restart_are_fixed_by_a_baseline():
    assert {
        *("init", "criterion", "select", "fraction", "cap", "normalize", "min_survivors", "layers"),
        *("outgoing", "grace_restarts", "second_moment", "norms", "compensate_bias"),
        *("score_every", "score_window", "max_restarts", "stop_on_repeat", "epochs", "baseline"),
        *("remedy", "shrink", "perturb", "matched_run"),
    } == AFTER_BASELINE


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_every_setting_says_what_it_does_in_whole_sentences(setting):
    assert setting.help[0].isupper() or setting.name in setting.help
    assert setting.description().endswith(".")


def test_differences_name_the_flags_and_both_values():
    one, other = (
        parse_settings([]),
        parse_settings(["--seed=3", "--data_dir=elsewhere", "--augment"]),
    )
    assert other.differences(one.to_dict()) == [
        "--augment was False, is True",
        "--seed was 0, is 3",
    ]
    moved = {"weights": "a/x.pth", "matched_run": "a/run", "model": "alexnet", "image_size": 64}
    moved |= {"dataset": "shapes"}
    there = RunSettings(**moved)
    here = RunSettings(**{**moved, "weights": "b/y.pth", "matched_run": "b/run"})
    assert there.differences(here.to_dict()) == []
    for name in ("weights", "matched_run"):
        assert len(RunSettings(**{**moved, name: None}).differences(here.to_dict())) == 1
    assert RunSettings(**{**moved, "matched_run": "a/other"}).differences(here.to_dict())
    without = one.to_dict()
    del without["on_nan"]
    assert one.differences(without) == []
    epochs = parse_settings(["--trigger=epochs"])
    assert epochs.differences(epochs.to_dict() | {"patience": 3}) == []  # it did nothing
    assert one.differences(one.to_dict() | {"patience": 3}) == ["--patience was 3, is 5"]


@pytest.mark.parametrize(
    ("precision", "policy"),
    [
        ("auto", "float32"),
        ("float32", "float32"),
        ("mixed_float16", "mixed_float16"),
        ("mixed_bfloat16", "mixed_bfloat16"),
    ],
)
def test_precision_names_a_dtype_policy(precision, policy):
    assert parse_settings([f"--precision={precision}"]).dtype_policy == policy
    assert parse_settings([]).precision == "auto"


def test_a_range_is_said_as_it_is_checked():
    setting = Setting("rate", float, 1.0, "group", "The rate.", above=0, most=1)
    assert setting.parse("1") == 1
    with pytest.raises(SettingError) as raised:
        setting.parse("0")
    assert str(raised.value) == (
        "--rate must be a finite number, above 0 and at most 1. Received: 0.0"
    )


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "a/b", "/a", "a\\b", "a\nb", "", "-a", "ä"])
def test_a_name_that_leads_out_of_its_folder_is_no_plain_name(name):
    assert not is_plain_name(name)
    assert is_plain_name("mininet-uniform_0.1+x=2")
