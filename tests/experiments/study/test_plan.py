"""What a study runs."""

import pathlib
import shlex
import subprocess
import sys

import pytest
from absl import flags

from kerasrestart.experiments import names, run_flags, settings
from kerasrestart.experiments.study.plan import PlanError, make_plan, parse_seeds, parse_sweep
from kerasrestart.experiments.study.results import Cell

BASE = ("--dataset=shapes", "--round_epochs=2", "--max_restarts=2", "--learning_rate_drops=0")


def plan(*base, networks=("mininet",), arms=("uniform",), seeds=(0,), sweep=()):
    return make_plan(
        (*BASE, *base), networks=networks, arms=arms, seeds=seeds, sweep=sweep, logdir="logs/st"
    )


def names_of(jobs):
    return [job.name for job in jobs]


def parsed(words):
    """The settings of `python -m kerasrestart.main` with these words."""
    values = flags.FlagValues()
    run_flags.define_flags(values)
    run_flags.define_place_flags(values)
    values(words)
    return settings.RunSettings.from_flags(values), values


def test_arms_of_a_seed_share_one_baseline_which_comes_first():
    jobs = plan(arms=("uniform", "random"), seeds=(0, 1))
    assert names_of(jobs) == [
        *("mininet-baseline-s0", "mininet-none-s0", "mininet-uniform-s0", "mininet-random-s0"),
        *("mininet-baseline-s1", "mininet-none-s1", "mininet-uniform-s1", "mininet-random-s1"),
    ]
    for job in jobs:
        seed = job.name[-1]
        is_baseline = job.cell is None
        assert job.needs == (None if is_baseline else f"mininet-baseline-s{seed}")
        assert job.settings.baseline == (None if is_baseline else f"logs/st/{job.needs}")
        assert job.settings.max_restarts == (0 if is_baseline else 2)
        assert job.settings.seed == int(seed)
    assert jobs[3].cell == Cell("mininet", "random", 0)


def test_the_control_is_added_once():
    assert names_of(plan(arms=())) == ["mininet-baseline-s0", "mininet-none-s0"]
    assert names_of(plan(arms=("he", "none"))).count("mininet-none-s0") == 1


def test_arms_are_made_of_flags():
    jobs = plan("--criterion=magnitude", arms=("he", "random", "reversed", "gentle:fraction=0.02"))
    arms = {job.cell.arm: job.settings for job in jobs if job.cell}
    assert arms["none"].init == "none"
    assert (arms["he"].init, arms["he"].criterion) == ("he", "magnitude")
    assert (arms["random"].init, arms["random"].criterion) == ("uniform", "random")
    assert arms["reversed"].criterion == "reversed_magnitude"
    assert arms["gentle"].fraction == 0.02
    assert all(of.trigger == "epochs" and not of.stop_on_repeat for of in arms.values())


def test_an_arm_that_trains_in_another_way_has_a_baseline_of_its_own():
    jobs = {job.name: job for job in plan(arms=("uniform", "decayed:weight_decay=0.01"))}
    other = jobs[jobs["mininet-decayed-s0"].needs]
    assert jobs["mininet-uniform-s0"].needs == "mininet-baseline-s0"
    assert other.name == "mininet-baseline2-s0"
    assert other.settings.weight_decay == 0.01
    assert jobs["mininet-baseline-s0"].settings.weight_decay == 0


def test_a_swept_flag_that_only_restarts_know_leaves_the_baseline_shared():
    jobs = plan(sweep=("fraction=0.1,0.2",))
    assert names_of(jobs) == [
        "mininet-baseline-s0",
        *("mininet-none-fraction=0.1-s0", "mininet-uniform-fraction=0.1-s0"),
        *("mininet-none-fraction=0.2-s0", "mininet-uniform-fraction=0.2-s0"),
    ]
    assert jobs[-1].settings.fraction == 0.2
    assert jobs[-1].cell == Cell("mininet", "uniform", 0, "fraction=0.2")


def test_a_swept_flag_that_trains_differently_has_a_baseline_for_each_value():
    jobs = {job.name: job for job in plan(sweep=("learning_rate=0.1,0.2", "fraction=0.1,0.2"))}
    assert [name for name in jobs if "baseline" in name] == [
        "mininet-baseline-learning_rate=0.1-s0",
        "mininet-baseline-learning_rate=0.2-s0",
    ]
    arm = jobs["mininet-uniform-learning_rate=0.2+fraction=0.1-s0"]
    assert arm.needs == "mininet-baseline-learning_rate=0.2-s0"
    assert jobs[arm.needs].settings.learning_rate == 0.2


def test_networks_are_models_with_flags():
    jobs = plan(networks=("mininet", "wide:model=mininet,batch_size=64"), arms=())
    assert names_of(jobs)[1::2] == ["mininet-none-s0", "wide-none-s0"]
    assert [job.settings.batch_size for job in jobs] == [128, 128, 64, 64]


def test_a_jobs_command_line_gives_its_settings_and_its_folder():
    jobs = plan(
        arms=("reversed", "decayed:weight_decay=0.01"), seeds=(3,), sweep=("momentum=0.5,0.9",)
    )
    for job in jobs:
        words = shlex.split(job.command("logs/st"))
        assert words[:3] == ["python", "-m", "kerasrestart.main"]
        found, place = parsed(words[2:])
        assert found == job.settings
        assert (place.logdir, place.run_name) == ("logs/st", job.name)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"arms": ("unifrom",)}, "unifrom"),
        ({"arms": ("uniform", "uniform")}, "comes twice"),
        ({"arms": ("he", "he:fraction=0.2")}, "comes twice"),
        ({"arms": ("strong:fraction=2",)}, "fraction"),
        ({"arms": ("strong:fractoin=0.2",)}, "fractoin"),
        ({"arms": ("capped:cap=0.2",)}, "expected no cap"),
        ({"arms": ("wide:scope=global,threshold=0.2",)}, "expected --scope='layer'"),
        ({"arms": ("even:normalize=l2",)}, "expected --scope='global'"),
        ({"arms": ("made_up:compensate_bias",)}, "expected --outgoing='zero'"),
        ({"arms": ("late:init=slots,outgoing=zero",)}, "--init='slots' changes no weight"),
        ({"arms": ("dead:init=zeros,outgoing=zero",)}, "never learn again"),
        ({"arms": ("odd:criterion=reversed_apoz,threshold=0.2",)}, "expected a fraction"),
        ({"arms": ("../up:fraction=0.2",)}, "../up"),
        ({"networks": (".up:model=mininet",)}, "letters"),
        ({"arms": ("other:seed=3",)}, "seed"),
        ({"arms": ("other:baseline=x",)}, "baseline"),
        ({"arms": ("other:model=mininet",)}, "model"),
        ({"arms": ("long:max_restarts=3",)}, "8 epochs against 6"),
        ({"arms": ("long:round_epochs=3",)}, "9 epochs against 6"),
        ({"arms": ("early:target=0.5",)}, "--target=0.5"),
        ({"arms": ("early:stop_on_repeat",)}, "--stop_on_repeat"),
        ({"arms": ("early:trigger=plateau",)}, "--trigger=plateau"),
        ({"networks": ("mininet", "mininet")}, "comes twice"),
        ({"networks": ("maxinet",)}, "maxinet"),
        ({"networks": ("mine:model=mininet,seed=1",)}, "seed"),
        ({"sweep": ("fraction",)}, "fraction=0.05,0.1"),
        ({"sweep": ("fraction=0.1,",)}, "fraction=0.05,0.1"),
        ({"sweep": ("fraction=0.1,0.1",)}, "comes twice"),
        ({"sweep": ("fraction=0.1", "fraction=0.2")}, "swept twice"),
        ({"sweep": ("layers=conv.*",)}, "letters"),
        ({"sweep": ("init=he,uniform",)}, "init"),
        ({"sweep": ("seed=1,2",)}, "seed"),
        ({"seeds": (2**31,)}, "seed"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(arguments, told):
    with pytest.raises(PlanError) as caught:
        plan(**arguments)
    assert told in str(caught.value)


def test_a_flag_of_all_runs_may_need_another_that_is_swept():
    jobs = plan("--cap=0.3", sweep=("threshold=0.1,0.2",))
    assert {(job.settings.cap, job.settings.threshold) for job in jobs if job.cell} == {
        *((0.3, 0.1), (0.3, 0.2)),
    }


@pytest.mark.parametrize(
    "flag", ["--trigger=plateau", "--stop_on_repeat", "--target=0.9", "--max_restarts=0"]
)
def test_a_study_of_unequal_budgets_or_without_restarts_is_refused(flag):
    with pytest.raises(PlanError, match="study"):
        plan(flag)


def test_epochs_that_would_cut_restarts_are_refused():
    with pytest.raises(PlanError, match=r"expected --epochs=240 or more.*Received: --epochs=200"):
        plan("--round_epochs=60", "--max_restarts=3")
    assert plan("--round_epochs=60", "--max_restarts=3", "--epochs=240")


def test_seeds():
    assert parse_seeds("0-2") == [0, 1, 2]
    assert parse_seeds("7, 0,3-4") == [7, 0, 3, 4]
    for wrong in ("", "3-1", "a", "1,,2", "-1", "0-2,1"):
        with pytest.raises(PlanError, match="seeds"):
            parse_seeds(wrong)


def test_without_a_sweep_there_is_one_variation_without_a_name():
    assert parse_sweep(()) == [("", ())]


def study(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "kerasrestart.study", "--study_name=st", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_dry_run_prints_the_commands_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", package_root())
    done = study(*BASE, "--dry_run", "--arms=he", "--seeds=0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [parsed(shlex.split(line)[2:])[1].run_name for line in lines] == [
        *("mininet-baseline-s0", "mininet-none-s0", "mininet-he-s0"),
    ]
    assert list(tmp_path.iterdir()) == []


def test_what_needs_equally_long_rounds_needs_no_further_flag(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", package_root())
    regimes = [["--tasks=random_labels", "--monitor=accuracy"], ["--warm_start_fraction=0.5"]]
    for regime in regimes:
        done = study(*BASE, *regime, "--dry_run", "--arms=he", "--seeds=0", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert all("--trigger=epochs" in line for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("table2", 3 * 3 * 7),
        ("table3", 5 * 3 * 4),
        ("small_data", 10 * 6),
        ("random_labels", 8 * 4),
    ],
)
def test_the_flagfiles_of_studies_are_plans(tmp_path, monkeypatch, name, runs):
    flagfile = pathlib.Path(package_root()) / "flags" / f"{name}.flags"
    if "model=alexnet" in flagfile.read_text() and "alexnet" not in names.MODELS:
        pytest.skip("there is no AlexNet yet")
    monkeypatch.setenv("PYTHONPATH", package_root())
    done = study(f"--flagfile={flagfile}", "--dry_run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == runs


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("--seeds=3-1",), "seeds must be"),
        (("--seed=3",), "--seed is set by the study"),
        (("--arms=unifrom",), "unifrom"),
        (("--dry_run", "--outgoing=zero", "--arms=slots"), "--init='slots' changes no weight"),
        (("--dry_run", "--threshold=0.1", "--arms=reversed"), "expected a fraction"),
    ],
)
def test_wrong_flags_end_the_command_with_one_line(tmp_path, monkeypatch, wrong, told):
    monkeypatch.setenv("PYTHONPATH", package_root())
    done = study(*wrong, cwd=tmp_path)
    assert done.returncode != 0
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert told in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_there_are_told_before_the_first_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", package_root())
    network = "--network=pretrained:model=alexnet,image_size=64,weights=nowhere.pth"
    done = study("--network=mininet", network, "--arms=he", "--seeds=0", cwd=tmp_path)
    assert done.returncode != 0
    assert "Received: nowhere.pth" in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def package_root():
    return settings.__file__.removesuffix("/kerasrestart/settings.py")
