"""How the runs of a study are run, with processes that only write what a run writes."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from kerasrestart.experiments.study import runner
from kerasrestart.experiments.study.plan import Job, PlanError, make_plan
from kerasrestart.experiments.study.runner import is_done, run_jobs
from tests.experiments.records.sample_record import sample_record

BASE = ("--dataset=shapes", "--round_epochs=2", "--max_restarts=2", "--learning_rate_drops=0")
RECORD = json.dumps(sample_record())

# Writes its name to a list, and what a run writes; or fails as it is told to.
RUN = """
import json, os, pathlib, sys, time
name, logdir, settings = sys.argv[1], pathlib.Path(sys.argv[2]), json.loads(sys.argv[3])
with (logdir / "begun").open("a") as file:
    file.write(name + "\\n")
how = json.loads((logdir / "how.json").read_text()).get(name)
if how == "sleeps":
    time.sleep(60)
if how == "killed":
    os.kill(os.getpid(), 9)
if how:
    sys.exit(how)
(logdir / name).mkdir(exist_ok=True)
data = {"note": json.loads((logdir / "how.json").read_text()).get("note", "")}
record = json.loads(sys.argv[4]) | {"settings": settings, "data": data}
(logdir / name / "run.json").write_text(json.dumps(record))
with (logdir / "begun").open("a") as file:
    file.write("end of " + name + "\\n")
"""


def fake_arguments(job, logdir):
    return ["-c", RUN, job.name, logdir, json.dumps(job.settings.to_dict()), RECORD]


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(Job, "command_arguments", fake_arguments)
    monkeypatch.setattr(runner, "_POLL_SECONDS", 0.01)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "how.json").write_text("{}")
    return tmp_path


def jobs_of(arms=("he",), seeds=(0,)):
    return make_plan(BASE, networks=["mininet"], arms=arms, seeds=seeds, logdir="logs/st")


def begun(folder):
    return (folder / "begun").read_text().splitlines() if (folder / "begun").exists() else []


def set_how(folder, **how):
    (folder / "how.json").write_text(json.dumps({k.replace("_", "-"): v for k, v in how.items()}))


def test_a_baseline_has_ended_before_its_arms_begin(folder):
    lines = []
    failed = run_jobs(jobs_of(arms=("he",), seeds=(0, 1)), folder, workers=3, tell=lines.append)
    assert failed == {}
    order = begun(folder)
    for seed in (0, 1):
        end = order.index(f"end of mininet-baseline-s{seed}")
        for arm in ("none", "he"):
            assert order.index(f"mininet-{arm}-s{seed}") > end
    assert len(lines) == 6
    assert lines[-1].startswith("[6/6 runs, about 0 s left] mininet-")


def test_that_the_data_are_others_is_told_once_when_the_first_run_has_ended(folder):
    told = []
    set_how(folder, note="These are NOT CIFAR-10.")
    run_jobs(jobs_of(seeds=(0, 1)), folder, workers=1, tell=told.append)
    assert told[0] == "*** These are NOT CIFAR-10. ***"
    assert sum("NOT CIFAR-10" in line for line in told) == 1


def test_no_more_than_so_many_run_at_once(folder):
    run_jobs(jobs_of(arms=("he", "xavier", "minmax")), folder, workers=2, tell=lambda line: None)
    at_once = most = 0
    for line in begun(folder):
        at_once += -1 if line.startswith("end of") else 1
        most = max(most, at_once)
    assert most <= 2


def test_runs_that_have_ended_are_not_run_again(folder):
    run_jobs(jobs_of(), folder, workers=1, tell=lambda line: None)
    before = begun(folder)
    lines = []
    run_jobs(jobs_of(arms=("he", "xavier")), folder, workers=1, tell=lines.append)
    assert begun(folder)[len(before) :] == ["mininet-xavier-s0", "end of mininet-xavier-s0"]
    assert lines[0] == "3 of 4 runs have ended already."


def test_a_baseline_that_no_run_needs_any_more_is_not_made(folder):
    run_jobs(jobs_of(), folder, workers=1, tell=lambda line: None)
    (folder / "mininet-baseline-s0" / "run.json").unlink()
    before = begun(folder)
    assert run_jobs(jobs_of(), folder, workers=1, tell=lambda line: None) == {}
    assert begun(folder) == before


def test_a_failed_baseline_skips_its_arms_and_no_others(folder):
    set_how(folder, mininet_baseline_s0="error: the disk is full")
    failed = run_jobs(jobs_of(seeds=(0, 1)), folder, workers=1, tell=lambda line: None)
    assert failed["mininet-baseline-s0"].startswith("the disk is full (see ")
    assert failed["mininet-none-s0"] == "its baseline mininet-baseline-s0 failed"
    assert set(failed) == {"mininet-baseline-s0", "mininet-none-s0", "mininet-he-s0"}
    assert "end of mininet-he-s1" in begun(folder)


def test_a_failed_run_does_not_stop_the_rest_and_is_tried_again_the_next_time(folder):
    set_how(folder, mininet_none_s0="error: out of memory", mininet_he_s0="killed")
    lines = []
    failed = run_jobs(jobs_of(arms=("he", "xavier")), folder, workers=1, tell=lines.append)
    assert failed["mininet-none-s0"].startswith("out of memory (see ")
    assert failed["mininet-he-s0"].startswith("killed by signal 9 (see ")
    assert "end of mininet-xavier-s0" in begun(folder)
    assert any("1 failed" in line and "FAILED: out of memory" in line for line in lines)
    set_how(folder, mininet_none_s0=3)
    failed = run_jobs(jobs_of(arms=("he", "xavier")), folder, workers=1, tell=lambda line: None)
    assert list(failed) == ["mininet-none-s0"]
    # The log still has the error of the first attempt.
    assert failed["mininet-none-s0"].startswith("exit status 3 (see ")


def test_a_folder_with_other_settings_is_refused_before_any_run(folder):
    jobs = jobs_of()
    settings = {**jobs[-1].settings.to_dict(), "learning_rate": 0.5}
    (folder / jobs[-1].name).mkdir()
    (folder / jobs[-1].name / "run.json").write_text(json.dumps(sample_record(settings=settings)))
    with pytest.raises(PlanError, match=r"--learning_rate was 0\.5, is 0\.01"):
        run_jobs(jobs, folder, workers=1, tell=lambda line: None)
    assert begun(folder) == []


def test_a_baseline_in_another_place_is_the_same_run(folder):
    job = jobs_of()[-1]
    assert not is_done(job, folder)
    settings = {**job.settings.to_dict(), "baseline": "elsewhere/mininet-baseline-s0"}
    (folder / job.name).mkdir()
    record = folder / job.name / "run.json"
    record.write_text(json.dumps(sample_record(settings=settings, finished=None)))
    assert not is_done(job, folder)  # it has not ended
    record.write_text(json.dumps(sample_record(settings=settings)))
    assert is_done(job, folder)


def test_an_interrupt_ends_the_runs(folder):
    set_how(folder, mininet_baseline_s0="sleeps")
    started = time.monotonic()
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_jobs(jobs_of(), folder, workers=1, tell=lambda line: None)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < 20  # the run would sleep for 60
    assert begun(folder) == ["mininet-baseline-s0"]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked to, on Linux alone")
def test_runs_end_with_a_study_that_is_killed(folder):
    set_how(folder, mininet_baseline_s0="sleeps")
    script = textwrap.dedent(
        """
        import sys, pathlib
        sys.path.insert(0, sys.argv[1])
        from test_runner import fake_arguments, jobs_of, run_jobs, Job
        Job.command_arguments = fake_arguments
        run_jobs(jobs_of(), pathlib.Path(sys.argv[2]), workers=1)
        """
    )
    here = pathlib.Path(__file__).parent
    study = subprocess.Popen(
        [sys.executable, "-c", script, str(here), str(folder)],
        env={**os.environ, "PYTHONPATH": str(here.parents[2])},
    )
    try:
        deadline = time.monotonic() + 30
        while not begun(folder) and time.monotonic() < deadline:
            time.sleep(0.02)
        (child,) = _children(study.pid)
    finally:
        study.kill()
        study.wait()
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(child)


def _children(parent):
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return found


def _runs(process):
    try:
        state = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
