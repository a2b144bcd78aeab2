"""The report of a folder of runs."""

import json
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
    assert rows[2:5] == [
        "a-uniform mininet uniform 10 baseline 50.00 45.00 +0.00",
        "b-control mininet none 10 restart 1 55.00 50.00 +5.00",
        "c-labels mininet he 10",
    ]
    assert max(map(len, printed.splitlines()[:5])) <= 80
    page = (tmp_path / "report.html").read_text()
    assert page.count("<tr>") == 4
    assert "<td>a-uniform</td>" in page


def test_the_folder_of_one_run_has_the_report_of_that_run(tmp_path, monkeypatch):
    write_run(tmp_path / "one", "uniform", (0.5, 0.55), (0.45, 0.5))
    assert report(monkeypatch, tmp_path / "one") == 0
    assert "<h2>Restarts</h2>" in (tmp_path / "one" / "report.html").read_text()


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
