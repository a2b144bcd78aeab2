"""`run_jobs` with processes that write a run's record and do nothing else."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from kerasrestart.experiments.study.executors import LocalExecutor
from kerasrestart.experiments.study.plan import Job, PlanError, make_plan
from kerasrestart.experiments.study.runner import is_done, run_jobs
from tests.experiments.records.sample_record import sample_record

BASE = {"dataset": "shapes", "round_epochs": 2, "max_restarts": 2}
RECORD = json.dumps(sample_record())

# Appends its name to the file `begun` and writes a record, or fails as `how.json` says.
RUN = """
import json, os, pathlib, sys, time
name, logdir, settings = sys.argv[1], pathlib.Path(sys.argv[2]), json.loads(sys.argv[3])
with (logdir / "begun").open("a") as file:
    file.write(name + "\\n")
options = json.loads((logdir / "how.json").read_text())
time.sleep(options.get("seconds", 0))
how = options.get(name)
if how == "sleeps":
    time.sleep(60)
if how == "killed":
    os.kill(os.getpid(), 9)
if how:
    sys.exit(how)
(logdir / name).mkdir(exist_ok=True)
data = {"note": options.get("note", "")}
record = json.loads(sys.argv[4]) | {"settings": settings, "data": data}
(logdir / name / "run.json").write_text(json.dumps(record))
with (logdir / "begun").open("a") as file:
    file.write("end of " + name + "\\n")
"""


def fake_arguments(job, logdir):
    return ["-c", RUN, job.name, logdir, json.dumps(job.settings.to_dict()), RECORD]


@pytest.fixture(autouse=True)
def _fake_runs(monkeypatch):
    monkeypatch.setattr(Job, "command_arguments", fake_arguments)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "how.json").write_text("{}")
    return tmp_path


def jobs_of(arms=("he",), seeds=(0,)):
    return make_plan(BASE, networks=["mininet"], arms=arms, seeds=seeds, logdir="logs/st")


def _quiet(line):
    pass


def begun(folder):
    return (folder / "begun").read_text().splitlines() if (folder / "begun").exists() else []


def set_how(folder, **how):
    (folder / "how.json").write_text(json.dumps({k.replace("_", "-"): v for k, v in how.items()}))


def test_a_baseline_is_complete_before_its_arms_start(folder):
    lines = []
    set_how(folder, seconds=0.2)
    failed = run_jobs(
        jobs_of(arms=("he",), seeds=(0, 1)), folder, executor=LocalExecutor(3), show=lines.append
    )
    assert failed == {}
    order = begun(folder)
    for seed in (0, 1):
        end = order.index(f"end of mininet-baseline-s{seed}")
        for arm in ("none", "he"):
            assert order.index(f"mininet-{arm}-s{seed}") > end
    assert sum(line.startswith("[") for line in lines) == 6
    assert lines[0] == f"mininet-baseline-s0 starts; log: {folder / 'logs/mininet-baseline-s0.log'}"
    assert lines[-1].startswith("[6/6 runs, about 0 s left] mininet-")


def test_a_note_on_the_data_is_shown_once(folder):
    shown = []
    set_how(folder, note="These are NOT CIFAR-10.")
    run_jobs(jobs_of(seeds=(0, 1)), folder, executor=LocalExecutor(1), show=shown.append)
    assert shown[1] == "*** These are NOT CIFAR-10. ***"
    assert sum("NOT CIFAR-10" in line for line in shown) == 1


def test_at_most_as_many_runs_as_workers_at_once(folder):
    set_how(folder, seconds=0.3)
    run_jobs(
        jobs_of(arms=("he", "xavier", "minmax")),
        folder,
        executor=LocalExecutor(2),
        show=lambda line: None,
    )
    now = highest = 0
    for line in begun(folder):
        now += -1 if line.startswith("end of") else 1
        highest = max(highest, now)
    assert highest <= 2


def test_complete_runs_are_not_repeated(folder):
    run_jobs(jobs_of(), folder, executor=LocalExecutor(1), show=_quiet)
    before = begun(folder)
    lines = []
    run_jobs(jobs_of(arms=("he", "xavier")), folder, executor=LocalExecutor(1), show=lines.append)
    assert begun(folder)[len(before) :] == ["mininet-xavier-s0", "end of mininet-xavier-s0"]
    assert lines[0] == "3 of 4 runs are complete already."


def test_a_missing_baseline_is_not_run_if_all_its_arms_are_complete(folder):
    run_jobs(jobs_of(), folder, executor=LocalExecutor(1), show=_quiet)
    (folder / "mininet-baseline-s0" / "run.json").unlink()
    before = begun(folder)
    assert run_jobs(jobs_of(), folder, executor=LocalExecutor(1), show=_quiet) == {}
    assert begun(folder) == before


def test_a_failed_baseline_skips_only_its_own_arms(folder):
    set_how(folder, mininet_baseline_s0="error: the disk is full")
    failed = run_jobs(
        jobs_of(seeds=(0, 1)), folder, executor=LocalExecutor(1), show=lambda line: None
    )
    assert failed["mininet-baseline-s0"].startswith("the disk is full (see ")
    assert failed["mininet-none-s0"] == "its baseline mininet-baseline-s0 failed"
    assert set(failed) == {"mininet-baseline-s0", "mininet-none-s0", "mininet-he-s0"}
    assert "end of mininet-he-s1" in begun(folder)


def test_other_runs_continue_after_a_failure_and_it_is_retried_next_time(folder):
    set_how(folder, mininet_none_s0="error: out of memory", mininet_he_s0="killed")
    lines = []
    failed = run_jobs(
        jobs_of(arms=("he", "xavier")), folder, executor=LocalExecutor(1), show=lines.append
    )
    assert failed["mininet-none-s0"].startswith("out of memory (see ")
    assert failed["mininet-he-s0"].startswith("killed by signal 9 (see ")
    assert "end of mininet-xavier-s0" in begun(folder)
    assert any("1 failed" in line and "FAILED: out of memory" in line for line in lines)
    set_how(folder, mininet_none_s0=3)
    failed = run_jobs(
        jobs_of(arms=("he", "xavier")), folder, executor=LocalExecutor(1), show=lambda line: None
    )
    assert list(failed) == ["mininet-none-s0"]
    # The log also holds the error of the first attempt.
    assert failed["mininet-none-s0"].startswith("exit status 3 (see ")


def test_a_run_with_other_settings_is_refused_before_any_run_starts(folder):
    jobs = jobs_of()
    settings = {**jobs[-1].settings.to_dict(), "learning_rate": 0.5}
    (folder / jobs[-1].name).mkdir()
    (folder / jobs[-1].name / "run.json").write_text(json.dumps(sample_record(settings=settings)))
    with pytest.raises(PlanError, match=r"--learning_rate was 0\.5, is 0\.01"):
        run_jobs(jobs, folder, executor=LocalExecutor(1), show=_quiet)
    assert begun(folder) == []


def test_a_moved_baseline_does_not_change_the_run(folder):
    job = jobs_of()[-1]
    assert not is_done(job, folder)
    settings = {**job.settings.to_dict(), "baseline": "elsewhere/mininet-baseline-s0"}
    (folder / job.name).mkdir()
    record = folder / job.name / "run.json"
    record.write_text(json.dumps(sample_record(settings=settings, finished=None)))
    assert not is_done(job, folder)  # not complete
    record.write_text(json.dumps(sample_record(settings=settings)))
    assert is_done(job, folder)


def test_an_interrupt_terminates_the_runs(folder):
    set_how(folder, mininet_baseline_s0="sleeps")
    started = time.monotonic()

    def interrupt():
        while not begun(folder) and time.monotonic() - started < 30:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_jobs(jobs_of(), folder, executor=LocalExecutor(1), show=_quiet)
    finally:
        thread.join()
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < 50  # the run sleeps for 60
    assert begun(folder) == ["mininet-baseline-s0"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl of Linux")
def test_runs_die_with_a_killed_study(folder):
    set_how(folder, mininet_baseline_s0="sleeps")
    script = textwrap.dedent(
        """
        import sys, pathlib
        sys.path.insert(0, sys.argv[1])
        from test_runner import LocalExecutor, fake_arguments, jobs_of, run_jobs, Job
        Job.command_arguments = fake_arguments
        run_jobs(jobs_of(), pathlib.Path(sys.argv[2]), executor=LocalExecutor(1))
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
