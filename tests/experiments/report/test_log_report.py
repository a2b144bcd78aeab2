"""The report of a folder of runs."""

import io
import json
import re
import subprocess
import sys

import pytest

from kerasrestart.experiments.report.command import PROGRAM, main


def report(monkeypatch, folder):
    """Runs the command line on a folder; returns its exit status."""
    monkeypatch.setattr(sys, "argv", ["report", str(folder)])
    with pytest.raises(SystemExit) as ended:
        PROGRAM.start(main)
    return ended.value.code


def write_run(folder, init, validation, test, **changes):
    rows = [
        {
            "round": f"restart {n}" if n else "baseline", "epochs": 5, "best_epoch": 5 * n + 4,
            "data": "shapes",
            "validation_accuracy": validation[n], "test_accuracy": test[n],
            "test_accuracy_last": test[n], "train_accuracy_last": 0.9, "restarted": {},
        }
        for n in range(len(test))
    ]  # fmt: skip
    record = {
        "settings": {"model": "mininet", "init": init, "monitor": "val_accuracy"},
        "versions": {}, "environment": {}, "data": {"name": "shapes", "note": ""}, "weights": None,
        "events": [], "rounds": [], "rollbacks": [], "finished": "max_restarts=1 reached",
        "table": rows, "timing": {"started": "", "seconds": 1.0, "folder": ""},
    }  # fmt: skip
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(record | changes))


def test_all_runs_of_a_folder_are_compared_on_the_terminal_and_on_a_page(
    tmp_path, capsys, monkeypatch
):
    write_run(tmp_path / "b-control", "none", (0.5, 0.55), (0.45, 0.5))
    write_run(tmp_path / "a-uniform", "uniform", (0.5, 0.4875), (0.45, 0.48))
    write_run(tmp_path / "c-labels", "he", (None, None), (None, None))
    (tmp_path / "empty").mkdir()
    assert report(monkeypatch, tmp_path) == 0
    printed = capsys.readouterr().out
    rows = [" ".join(line.split()) for line in printed.splitlines()]
    assert rows[2:8] == [
        *("a-uniform 10 baseline 50.00 45.00 +0.00", "init=uniform"),
        *("b-control 10 restart 1 55.00 50.00 +5.00", "init=none"),
        *("c-labels 10", "init=he"),
    ]
    assert max(map(len, printed.splitlines()[:8])) <= 80
    page = (tmp_path / "report.html").read_text()
    assert page.count("<tr>") == 4
    assert "<td>a-uniform</td>" in page


@pytest.mark.parametrize("terminal", [True, False])
def test_settings_that_differ_are_shown_in_80_columns(tmp_path, monkeypatch, terminal):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    out = io.StringIO()
    out.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stdout", out)
    common = {"model": "mininet", "baseline": "x", "momentum": 0.9, "monitor": "val_accuracy"}
    for number, init in enumerate(("orthogonal_to_survivors", "none")):
        name = f"mininet-{init}-cifar10-20261127-020341-71015{number}"
        settings = {**common, "init": init, "learning_rate": 10 ** (-3 - number)}
        settings |= {"layers": "conv.*", "baseline": "y"} if number else {}
        write_run(tmp_path / name, init, (0.5, 1.0), (0.45, 1.0), settings=settings)
    assert report(monkeypatch, tmp_path) == 0
    lines = out.getvalue().splitlines()
    assert [line.rstrip() for line in lines[:10]] == [
        "                                        best        val.   test",
        "run                              epochs round       best   best   gain",
        "mininet-none-                        10 restart 1 100.00 100.00 +50.00",
        "cifar10-20261127-020341-710151",
        "  init=none layers=conv.*",
        "  learning_rate=0.0001",
        "mininet-orthogonal_to_survivors-     10 restart 1 100.00 100.00 +50.00",
        "cifar10-20261127-020341-710150",
        "  init=orthogonal_to_survivors",
        "  learning_rate=0.001",
    ]
    page = (tmp_path / "report.html").read_text()
    for name in ("init", "layers", "learning_rate"):
        assert re.search(f"<th[^>]*>{name}</th>", page), name
    assert "momentum" not in page
    assert "baseline" not in page.replace("own baseline", "")


def test_the_folder_of_one_run_has_the_report_of_that_run(tmp_path, monkeypatch):
    write_run(tmp_path / "one", "uniform", (0.5, 0.55), (0.45, 0.5))
    assert report(monkeypatch, tmp_path / "one") == 0
    assert "<h2>Restarts</h2>" in (tmp_path / "one" / "report.html").read_text()


@pytest.mark.parametrize("what", ["a file", "no such folder"])
def test_what_is_not_a_folder_is_refused(what, tmp_path, capsys, monkeypatch):
    if what == "a file":
        (tmp_path / "logs").touch()
    assert report(monkeypatch, tmp_path / "logs") == 1
    assert capsys.readouterr().err == (
        "error: FOLDER must be the folder of a run or of runs, such as tf_logs/RUN. Received: "
        f"'{tmp_path}/logs', {what}\n"
    )


@pytest.mark.parametrize("table", [None, [{}], 3])
def test_a_damaged_record_among_them_is_named(tmp_path, capsys, monkeypatch, table):
    write_run(tmp_path / "good", "uniform", (0.5,), (0.45,))
    write_run(tmp_path / "bad", "uniform", (0.5,), (0.45,), table=table)
    assert report(monkeypatch, tmp_path) == 1
    assert f"{tmp_path / 'bad' / 'run.json'} is not a valid" in capsys.readouterr().err


def test_reports_are_written_without_tensorflow():
    code = (
        "import sys, kerasrestart.experiments.report.log_report, "
        "kerasrestart.experiments.study.collect\n"
        "print({'tensorflow', 'keras', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert done.stderr == ""
