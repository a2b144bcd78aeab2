"""The runs of a study."""

import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest

import kerasrestart
from kerasrestart.experiments.run import command as run_command
from kerasrestart.experiments.setting import SettingError
from kerasrestart.experiments.study import command, figures
from kerasrestart.experiments.study.grid import (
    MAX_RUNS,
    PlanError,
    network_settings,
    of_size,
    parse_seeds,
)
from kerasrestart.experiments.study.plan import in_order_of_needs, make_plan
from kerasrestart.experiments.study.results import Cell
from kerasrestart.experiments.study.sweep import parse_sweep
from tests.typed_settings import parse_settings

ROOT = pathlib.Path(kerasrestart.__file__).parents[1]
BASE = {"dataset": "shapes", "round_epochs": 2, "max_restarts": 2}


def plan(networks=("mininet",), arms=("uniform",), seeds=(0,), sweep=(), **base):
    return make_plan(
        {**BASE, **base}, networks=networks, arms=arms, seeds=seeds, sweep=sweep, logdir="logs/st"
    )


def names_of(jobs):
    return [job.name for job in jobs]


def test_arms_of_a_seed_share_one_baseline_which_comes_first():
    jobs = plan(arms=("uniform", "random"), seeds=(0, 1))
    assert names_of(jobs) == [
        *("mininet-baseline-s0", "mininet-none-s0", "mininet-uniform-s0", "mininet-random-s0"),
        *("mininet-baseline-s1", "mininet-none-s1", "mininet-uniform-s1", "mininet-random-s1"),
    ]
    for job in jobs:
        seed = job.name[-1]
        is_baseline = job.cell is None
        assert job.needs == (() if is_baseline else (f"mininet-baseline-s{seed}",))
        assert job.settings.baseline == (None if is_baseline else f"logs/st/{job.needs[0]}")
        assert job.settings.max_restarts == (0 if is_baseline else 2)
        assert job.settings.seed == int(seed)
    assert jobs[3].cell == Cell("mininet", "random", 0)


def test_the_control_is_added_once():
    assert names_of(plan(arms=())) == ["mininet-baseline-s0", "mininet-none-s0"]
    assert names_of(plan(arms=("he", "none"))).count("mininet-none-s0") == 1


def test_arms_are_made_of_flags():
    jobs = plan(
        arms=("he", "random", "reversed", "gentle:fraction=0.02,norm=batch,nonorms"),
        criterion="magnitude",
    )
    arms = {job.cell.arm: job.settings for job in jobs if job.cell}
    assert arms["none"].init == "none"
    assert (arms["he"].init, arms["he"].criterion) == ("he", "magnitude")
    assert (arms["random"].init, arms["random"].criterion) == ("uniform", "random")
    assert arms["reversed"].criterion == "reversed_magnitude"
    assert (arms["gentle"].fraction, arms["gentle"].norms) == (0.02, False)
    assert all(of.trigger == "epochs" and not of.stop_on_repeat for of in arms.values())


def test_an_arm_with_another_first_round_has_a_baseline_of_its_own():
    jobs = {job.name: job for job in plan(arms=("uniform", "decayed:weight_decay=0.01"))}
    other = jobs[jobs["mininet-decayed-s0"].needs[0]]
    assert jobs["mininet-uniform-s0"].needs == ("mininet-baseline-s0",)
    assert other.name == "mininet-baseline2-s0"
    assert other.settings.weight_decay == 0.01
    assert jobs["mininet-baseline-s0"].settings.weight_decay == 0


def test_a_sweep_that_matters_after_the_baseline_leaves_it_shared():
    jobs = plan(sweep=("fraction=0.1,0.2",))
    assert names_of(jobs) == [
        "mininet-baseline-s0",
        *("mininet-none-fraction=0.1-s0", "mininet-uniform-fraction=0.1-s0"),
        *("mininet-none-fraction=0.2-s0", "mininet-uniform-fraction=0.2-s0"),
    ]
    assert jobs[-1].settings.fraction == 0.2
    assert jobs[-1].cell == Cell("mininet", "uniform", 0, "fraction=0.2")


def test_a_sweep_that_matters_in_the_baseline_has_one_for_each_value():
    jobs = {job.name: job for job in plan(sweep=("learning_rate=0.1,0.2", "fraction=0.1,0.2"))}
    assert [name for name in jobs if "baseline" in name] == [
        "mininet-baseline-learning_rate=0.1-s0",
        "mininet-baseline-learning_rate=0.2-s0",
    ]
    arm = jobs["mininet-uniform-learning_rate=0.2+fraction=0.1-s0"]
    assert arm.needs == ("mininet-baseline-learning_rate=0.2-s0",)
    assert jobs[arm.needs[0]].settings.learning_rate == 0.2


def test_equal_values_of_a_sweep_count_once():
    (one,) = parse_sweep(("fraction=0.1,0.10,1e-1", "momentum=0,0.0"))
    assert (one.label(), one.values) == (
        "fraction=0.1+momentum=0",
        {"fraction": 0.1, "momentum": 0.0},
    )
    (none,) = parse_sweep(())
    assert (none.label(), none.values) == ("", {})


def test_swept_values_have_different_names():
    found = parse_sweep(("layers=a/b,a:b,a_b,a/b",))
    assert {one.label(): one.values["layers"] for one in found} == {
        "layers=a_b": "a/b",
        "layers=a_b_2": "a:b",
        "layers=a_b_3": "a_b",
    }


def test_a_swept_value_may_have_any_characters():
    jobs = {job.name: job for job in plan(sweep=("learning_rate=1e+0", "layers=a/b.*,a+b=c"))}
    arms = [(job.settings.layers, job.needs) for job in jobs.values() if job.cell]
    baseline = ("mininet-baseline-learning_rate=1e+0-s0",)
    assert set(arms) == {("a/b.*", baseline), ("a+b=c", baseline)}
    assert "mininet-uniform-learning_rate=1e+0+layers=a_b._-s0" in jobs


def test_a_swept_flag_can_make_another_valid():
    jobs = plan(sweep=("select=below_mean,global_fraction",), cap=0.3)
    assert {(job.settings.cap, job.settings.select) for job in jobs if job.cell} == {
        *((0.3, "below_mean"), (0.3, "global_fraction")),
    }


def test_an_arm_can_match_another_and_comes_after_it():
    matched = "matched:criterion=random,matched_run=he"
    jobs = {job.name: job for job in plan(arms=(matched, "he"), sweep=("momentum=0,0.5",))}
    one = jobs["mininet-matched-momentum=0-s0"]
    assert one.needs == ("mininet-baseline-momentum=0-s0", "mininet-he-momentum=0-s0")
    assert one.settings.matched_run == "logs/st/mininet-he-momentum=0-s0"
    assert one.settings.criterion == "random"
    typed = list(jobs.values())
    ordered = in_order_of_needs(typed)
    for place, job in enumerate(ordered):
        assert set(job.needs) <= {before.name for before in ordered[:place]}
    assert sorted(job.name for job in ordered) == sorted(job.name for job in typed)


@pytest.mark.parametrize("other", ["none", "nowhere", "matched", "head_reset"])
def test_an_arm_that_restarts_no_filters_is_not_matched(other):
    arms = ("he", "head_reset", f"matched:criterion=random,matched_run={other}")
    with pytest.raises(PlanError, match=r"one of \['he'\]\. Received: run "):
        plan(arms=arms)


def test_arms_that_match_each_other_are_refused():
    arms = ("a:criterion=random,matched_run=b", "b:criterion=random,matched_run=a")
    with pytest.raises(PlanError, match=r"Received: mininet-a-s0 -> mininet-b-s0 -> mininet-a-s0"):
        plan(arms=arms)


def test_a_run_to_match_is_given_to_an_arm():
    for options in ({"matched_run": "he"}, {"sweep": ("matched_run=he",)}):
        with pytest.raises(PlanError, match="pass --arm=NAME:matched_run=ARM"):
            plan(**options)


def test_remedies_are_arms_without_restarted_filters():
    jobs = plan(arms=("head_reset", "both:init=he,remedy=head_reset"))
    arms = {job.cell.arm: (job.settings.init, job.settings.remedy) for job in jobs if job.cell}
    assert arms == {
        "none": ("none", "none"),
        "head_reset": ("none", "head_reset"),
        "both": ("he", "head_reset"),
    }
    assert sum(job.cell is None for job in jobs) == 1  # they share the baseline


def test_arms_get_the_values_found_for_them():
    tuned = {("mininet", "none"): {"momentum": 0.5}, ("mininet", "he"): {"momentum": 0.0}}
    jobs = make_plan(
        BASE, networks=["mininet"], arms=["he"], seeds=[3], tuned=tuned, outcome="online", logdir=""
    )
    arms = {job.cell.arm: job for job in jobs if job.cell}
    assert {name: job.settings.momentum for name, job in arms.items()} == {"none": 0.5, "he": 0.0}
    for job in arms.values():
        assert job.cell.outcome == "online"
        baseline = next(other for other in jobs if other.name == job.needs[0])
        assert baseline.settings.momentum == job.settings.momentum


@pytest.mark.parametrize("given", ["--tune=learning_rate=0.1,0.2", "--tune_seeds=9"])
def test_values_to_tune_and_their_seeds_go_together(given):
    parsed = command.PROGRAM.parse(["--study_name=st", given])
    with pytest.raises(PlanError, match="must both be given"):
        command.read_plan(parsed)


def test_networks_are_models_with_flags():
    jobs = plan(networks=("mininet", "wide:model=mininet,batch_size=64"), arms=())
    assert names_of(jobs)[1::2] == ["mininet-none-s0", "wide-none-s0"]
    assert [job.settings.batch_size for job in jobs] == [128, 128, 64, 64]


@pytest.mark.parametrize(
    ("network", "label", "settings"),
    [
        ("nets.py:tiny", "tiny", {"model": "nets.py:tiny"}),
        ("pkg.nets:Wide.build", "build", {"model": "pkg.nets:Wide.build"}),
        ("me@home/nets.py:tiny", "tiny", {"model": "me@home/nets.py:tiny"}),
        ("a:model=pkg.nets:tiny,augment", "a", {"model": "pkg.nets:tiny", "augment": True}),
        ("a:model=nets.py:tiny,seed=1", None, "--network=a:seed cannot be set"),
        ("a:augment", "a", {"augment": True}),
        ("a:noaugment", "a", {"augment": False}),
        ("a:model=nets:augment", "a", {"model": "nets:augment"}),
        ("../nets.py", "../nets.py", {"model": "../nets.py"}),
    ],
)
def test_a_network_of_your_own_is_told_from_a_name_with_flags(network, label, settings):
    if label is None:
        with pytest.raises(PlanError, match=settings):
            network_settings(network)
        return
    assert network_settings(network) == (label, settings)
    assert of_size([network], None) == [network]


def test_runs_are_named_after_functions_and_code_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text("def tiny(a, b): pass\ndef low(s): pass\ndef high(s): pass")
    arms = ("mine:init=own.py:tiny,callback=own.py:low",)
    jobs = plan(networks=("own.py:tiny",), arms=arms, sweep=("select=own.py:low,own.py:high",))
    assert names_of(jobs) == [
        *("tiny-baseline-s0", "tiny-none-select=low-s0"),
        *("tiny-baseline2-s0", "tiny-mine-select=low-s0"),  # callbacks may act before a restart
        *("tiny-none-select=high-s0", "tiny-mine-select=high-s0"),
    ]
    with pytest.raises(SettingError, match=r"--select must be .* Did you mean low"):
        plan(arms=("mine:select=own.py:lo",))


def test_the_command_line_of_a_job_gives_its_settings_and_its_folder():
    jobs = plan(
        arms=("reversed", "decayed:weight_decay=0.01"), seeds=(3,), sweep=("momentum=0.5,0.9",)
    )
    for job in jobs:
        words = shlex.split(job.command("logs/st"))
        assert words[:3] == ["python", "-m", "kerasrestart.main"]
        parsed = run_command.PROGRAM.parse(words[3:])
        assert run_command.read_settings(parsed) == job.settings
        assert (parsed.values["logdir"], parsed.values["run_name"]) == ("logs/st", job.name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arms": ("unifrom",)}, "Did you mean uniform?"),
        ({"arms": ("uniform", "uniform")}, "'mininet-uniform-s0' twice"),
        ({"arms": ("he", "he:fraction=0.2")}, "'mininet-he-s0' twice"),
        ({"arms": ("strong:fraction=2",)}, "--fraction must be"),
        ({"arms": ("strong:fractoin=0.2",)}, "Did you mean fraction?"),
        ({"arms": ("strong:fraction",)}, "as in fraction=VALUE"),
        ({"arms": ("capped:cap=0.2",)}, "--cap is not an option of --select=fraction"),
        (
            {"arms": ("late:init=slots,outgoing=zero",)},
            "beside --init=slots, which changes no weight",
        ),
        ({"arms": ("odd:criterion=reversed_apoz,select=below_mean",)}, "not reversed"),
        ({"arms": ("../up:fraction=0.2",)}, "../up"),
        ({"arms": ("other:seed=3",)}, "pass --seeds"),
        ({"arms": ("other:baseline=x",)}, "--arm=other:baseline cannot be set"),
        ({"arms": ("other:model=mininet",)}, "pass --network"),
        ({"arms": ("long:max_restarts=3",)}, "8 epochs against 6"),
        ({"arms": ("long:round_epochs=3",)}, "9 epochs against 6"),
        ({"arms": ("early:target=0.5",)}, "with no --target. Received: --target=0.5"),
        ({"arms": ("early:stop_on_repeat",)}, "equally long, with --nostop_on_repeat"),
        ({"arms": ("early:trigger=plateau",)}, "equally long, with --trigger=epochs"),
        ({"networks": ("mininet", "mininet")}, "twice"),
        ({"networks": ("maxinet",)}, "Did you mean mininet?"),
        ({"networks": (".up:model=mininet",)}, "letters"),
        ({"networks": ("mine:model=mininet,seed=1",)}, "--network=mine:seed cannot be set"),
        ({"sweep": ("fraction",)}, "fraction=0.05,0.1"),
        ({"sweep": ("fraction=0.1,",)}, "fraction=0.05,0.1"),
        ({"sweep": ("fraction=0.1", "fraction=0.2")}, "'fraction' twice"),
        ({"sweep": ("fraction=0.1,ten",)}, "--fraction must be"),
        ({"sweep": ("init=he,uniform",)}, "pass --arms"),
        ({"sweep": ("seed=1,2",)}, "pass --seeds"),
        ({"seeds": (2**31,)}, "--seed must be"),
        ({"seeds": range(MAX_RUNS)}, "1 networks x 2 arms x 10000 seeds x 1 values"),
        ({"trigger": "plateau"}, "equally long, with --trigger=epochs"),
        ({"stop_on_repeat": True}, "equally long, with --nostop_on_repeat"),
        ({"target": 0.9}, "equally long, with no --target"),
        ({"max_restarts": 0}, "Received: --max_restarts=0"),
        ({"beta_2": 0.9}, "--beta_2 has an effect only with --optimizer=adam or adamw"),
        ({"arms": ("a:optimizer=adam", "b:epsilon=1e-3")}, "--epsilon has an effect only"),
        ({"networks": ("a:shrink=0.2",)}, "--shrink has an effect only with --remedy=shrink_and"),
        ({"sweep": ("patience=2,3",)}, "--patience has no effect in a study, whose runs train"),
        (
            {"sweep": ("optimizer=sgd,adam", "momentum=0.5,0.6")},
            "--momentum has an effect only with --optimizer=sgd or rmsprop",
        ),
        ({"round_epochs": 60, "max_restarts": 3}, "--epochs must be 240 or more"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(arguments, message):
    with pytest.raises(PlanError) as caught:
        plan(**arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_setting_may_have_an_effect_in_some_runs_only():
    jobs = plan(
        arms=("adam:optimizer=adam,second_moment=survivors", "shrink_and_perturb"),
        sweep=("momentum=0.5,0.6",),
        beta_2=0.9,
        shrink=0.2,
    )
    found = {}
    for job in jobs:
        if job.cell and job.cell.variation == "momentum=0.5":
            found[job.cell.arm] = job.settings
        assert parse_settings(job.settings.to_flags()) == job.settings  # its command is accepted
    values = {arm: (s.momentum, s.beta_2, s.shrink) for arm, s in found.items()}
    assert values == {  # in other runs these are as if they were not given
        "none": (0.5, 0.999, 0.4),
        "adam": (0.9, 0.9, 0.4),
        "shrink_and_perturb": (0.5, 0.999, 0.2),
    }


def test_enough_epochs_for_all_restarts_are_accepted():
    assert plan(round_epochs=60, max_restarts=3, epochs=240)


def test_seeds():
    assert parse_seeds("0-2") == [0, 1, 2]
    assert parse_seeds("7, 0,3-4") == [7, 0, 3, 4]
    for wrong in ("", "3-1", "a", "1,,2", "-1", "0-2,1", "0-9999999", "1" * 5000):
        with pytest.raises(PlanError, match="--seeds must be"):
            parse_seeds(wrong)


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("paper_table2", 5 * 3 * 8),
        ("paper_table3", 5 * 6 * 4),
        ("small_data", 10 * 6),
        ("random_labels", 8 * 4),
        ("shuffled_classes", 10 * (7 + 3)),
        ("killing_rate", 10 * (6 + 4)),
        ("killing_rate_thin", 10 * (6 + 4)),
        ("killing_rate_tuned", 10 * (5 + 3)),
        ("random_labels_remedies", 8 * (6 + 3)),
    ],
)
def test_the_flagfiles_of_studies_are_plans(name, runs):
    parsed = command.PROGRAM.parse([f"--flagfile={ROOT / 'flags' / name}.flags"])
    study = command.read_plan(parsed)
    folder, jobs = study.folder, study.jobs({})
    is_paper = name.startswith("paper")
    assert folder == pathlib.Path(*(("docs/results", "paper") if is_paper else ("tf_logs", name)))
    assert len(jobs) == runs


@pytest.mark.parametrize(
    "regime", [["--tasks=random_labels", "--monitor=accuracy"], ["--warm_start_fraction=0.5"]]
)
def test_a_regime_of_equal_rounds_needs_no_further_flag(regime):
    parsed = command.PROGRAM.parse(["--study_name=st", "--arms=he", "--seeds=0", *regime])
    assert all(job.settings.trigger == "epochs" for job in command.read_plan(parsed).jobs({}))


def study(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "kerasrestart.study", "--study_name=st", *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_dry_run_prints_the_commands_and_writes_nothing(tmp_path):
    done = study("--dataset=shapes", "--dry_run", "--arms=he", "--seeds=0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = [run_command.PROGRAM.parse(shlex.split(line)[3:]) for line in done.stdout.splitlines()]
    assert [run.values["run_name"] for run in runs] == [
        *("mininet-baseline-s0", "mininet-none-s0", "mininet-he-s0"),
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--seed=3",), "--seed cannot be set in a study: pass --seeds"),
        (("--model=alexnet",), "--model cannot be set in a study: pass --network"),
        (("--arms=unifrom",), "Did you mean uniform?"),
        (
            ("--dry_run", "--outgoing=zero", "--arms=slots"),
            "beside --init=slots, which changes no weight",
        ),
    ],
)
def test_wrong_flags_end_the_command_with_one_line(tmp_path, wrong, message):
    done = study(*wrong, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_missing_weights_are_reported_before_the_first_run(tmp_path):
    network = "--network=pretrained:model=alexnet,image_size=64,weights=nowhere.pth"
    done = study("--network=mininet", network, "--arms=he", "--seeds=0", cwd=tmp_path)
    assert done.returncode == 1
    assert "Received: 'nowhere.pth'" in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_study_of_several_sizes_runs_the_networks_of_one():
    networks = ["mininet", "a@small:model=alexnet,image_size=64", "a@paper:model=alexnet"]
    assert of_size(networks, "small") == ["mininet", "a:model=alexnet,image_size=64"]
    assert of_size(["mininet"], None) == ["mininet"]
    with pytest.raises(PlanError, match="one of small, paper: the networks have sizes"):
        of_size(networks, None)
    with pytest.raises(PlanError, match=r"small, paper\. Received: 'papr'\. Did you mean paper"):
        of_size(networks, "papr")
    with pytest.raises(PlanError, match="left out: no --network=NAME@SIZE"):
        of_size(["mininet"], "small")


@pytest.mark.parametrize(
    ("flags", "folder", "name", "files"),
    [
        ("paper_table2", "paper", "table2", 10),
        ("paper_table3", "paper", "table3", 10),
        ("shuffled_classes", "shuffled_classes", "", 14),
        ("random_labels_remedies", "random_labels_remedies", "", 10),
        ("killing_rate_thin", "killing_rate_thin", "", 10),
        ("killing_rate_tuned", "killing_rate_tuned", "", 12),
        ("fine_tuning", "fine_tuning", "", 12),
        ("killing_rate", "killing_rate", "", 10),
    ],
)
def test_the_committed_records_give_the_committed_report(
    flags, folder, name, files, tmp_path, monkeypatch, capsys
):
    written = ROOT / "docs" / "results" / folder / name
    shutil.copytree(ROOT / "docs" / "results" / folder, tmp_path / "docs" / "results" / folder)
    shutil.copytree(ROOT / "flags", tmp_path / "flags")  # a flagfile may name another
    made = tmp_path / "docs" / "results" / folder / name
    shutil.rmtree(made / "tables")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "draw", lambda groups: {})  # they depend on the fonts
    flagfile = f"--flagfile={ROOT / 'flags' / flags}.flags"
    command.main(command.PROGRAM.parse([flagfile, "--logdir=docs/results", "--collect"]))
    for table in (made / "tables").iterdir():
        assert table.read_bytes() == (written / "tables" / table.name).read_bytes()
    assert len(list((made / "tables").iterdir())) == files
