"""A setting that would do nothing is refused: where it is, and only there."""

import pytest

from kerasrestart.experiments import settings as settings_module
from kerasrestart.experiments.combinations import restart_plan_arguments
from kerasrestart.experiments.effects import NEEDS, without_effect
from kerasrestart.experiments.run.build import _optimizer
from kerasrestart.experiments.setting import SettingError, parse_words
from kerasrestart.experiments.settings import SETTINGS, RunSettings
from tests.typed_settings import parse_settings

# By setting: what is typed, what makes it useless, and what gives it an effect.
CASES = {
    "label_noise": (
        "--label_noise=0.2",
        ["--tasks=random_labels", "--trigger=epochs", "--monitor=loss"],
        ["--tasks=shuffled_classes", "--trigger=epochs"],
    ),
    "select": ("--select=below_mean", ["--matched_run=x"], []),
    "fraction": ("--fraction=0.2", ["--matched_run=x"], []),
    "cap": ("--cap=0.2", ["--matched_run=x", "--select=below_mean"], ["--select=below_mean"]),
    "normalize": (
        "--normalize=l2",
        ["--matched_run=x", "--select=global_fraction"],
        ["--select=global_fraction"],
    ),
    "min_survivors": ("--min_survivors=2", ["--matched_run=x"], []),
    "grace_restarts": ("--grace_restarts=2", [], ["--outgoing=zero"]),
    "second_moment": ("--second_moment=survivors", [], ["--optimizer=rmsprop"]),
    "norms": ("--nonorms", ["--model=mininet"], ["--model=resnet20"]),
    "score_every": ("--score_every=2", ["--criterion=reversed_random"], ["--criterion=apoz"]),
    "score_window": (
        "--score_window=2",
        ["--criterion=magnitude"],
        ["--criterion=magnitude", "--outgoing=zero", "--compensate_bias"],
    ),
    "shrink": ("--shrink=0.2", ["--remedy=full_reset"], ["--remedy=shrink_and_perturb"]),
    "perturb": ("--perturb=0.2", [], ["--remedy=shrink_and_perturb"]),
    "patience": ("--patience=3", ["--trigger=epochs"], []),
    "min_delta": ("--min_delta=0.1", ["--trigger=epochs"], []),
    "round_epochs": ("--round_epochs=4", [], ["--trigger=epochs"]),
    "learning_rate_factor": ("--learning_rate_factor=0.5", [], ["--on_nan=rollback"]),
    "momentum": ("--momentum=0.5", ["--optimizer=adam"], ["--optimizer=rmsprop"]),
    "beta_2": ("--beta_2=0.9", ["--optimizer=rmsprop"], ["--optimizer=adamw"]),
    "epsilon": ("--epsilon=0.001", [], ["--optimizer=rmsprop"]),
    "test_each_epoch": (
        "--test_each_epoch",
        ["--tasks=class_subsets", "--trigger=epochs", "--monitor=loss"],
        [],
    ),
}


def test_every_case_is_tested():
    assert CASES.keys() == NEEDS.keys()


@pytest.mark.parametrize("name", CASES)
def test_a_flag_without_effect_is_refused_in_one_line_and_its_default_is_not(name):
    typed, useless, useful = CASES[name]
    values = parse_words([word.removeprefix("--") for word in (typed, *useless)], SETTINGS)
    with pytest.raises(SettingError, match="has an effect only with"):
        RunSettings(**values)
    defaults = {name: setting.default for name, setting in SETTINGS.items()}
    line = str(without_effect({**defaults, **values}, SETTINGS)[name])
    assert line.startswith(f"--{name} has an effect only with ")
    assert f". Received: {typed} with " in line
    assert ": otherwise it must be " in line
    assert "None" not in line
    assert parse_settings([typed, *useful])
    if defaults[name] is not None:  # as in flags.txt of a run, which has them all
        others = [word for word in useless if not word.startswith("--select")]
        assert parse_settings([SETTINGS[name].as_flag(defaults[name]), *others])


def test_the_line_says_what_would_be_right():
    with pytest.raises(SettingError) as caught:
        parse_settings(["--momentum=0.5", "--optimizer=adam"])
    assert str(caught.value) == (
        "--momentum has an effect only with --optimizer=sgd or rmsprop: otherwise it must be the "
        "default, --momentum=0.9. Received: --momentum=0.5 with --optimizer=adam"
    )


@pytest.mark.parametrize("control", ["none", "slots"])
def test_a_control_takes_the_flags_of_the_run_that_it_repeats(control):
    flags = ["--fraction=0.2", "--score_every=4", "--nostop_on_repeat", "--max_restarts=0"]
    assert parse_settings([*flags, f"--init={control}"])


def refused(**values):
    try:
        RunSettings(**values)
    except SettingError:
        return True
    return False


@pytest.mark.parametrize("optimizer", SETTINGS["optimizer"].choices)
@pytest.mark.parametrize(("name", "value"), [("momentum", 0.5), ("beta_2", 0.9), ("epsilon", 1e-3)])
def test_what_is_refused_would_not_change_the_optimizer(optimizer, name, value, monkeypatch):
    is_refused = refused(optimizer=optimizer, **{name: value})
    monkeypatch.setattr(settings_module, "without_effect", lambda *_: {})
    usual, changed = (
        {**_optimizer(RunSettings(optimizer=optimizer, **other)).get_config(), "name": ""}
        for other in ({}, {name: value})
    )
    assert (usual == changed) == is_refused


@pytest.mark.parametrize("trigger", SETTINGS["trigger"].choices)
@pytest.mark.parametrize(
    ("name", "value"), [("patience", 3), ("min_delta", 1), ("round_epochs", 4)]
)
def test_what_is_refused_would_not_change_when_rounds_end(trigger, name, value, monkeypatch):
    is_refused = refused(trigger=trigger, **{name: value})
    monkeypatch.setattr(settings_module, "without_effect", lambda *_: {})
    usual, changed = (
        restart_plan_arguments(RunSettings(trigger=trigger, **other).to_dict())["when"]
        for other in ({}, {name: value})
    )
    assert (usual == changed) == is_refused
