"""The folder of a run: held by one process, and nothing in it lost."""

import json
import subprocess
import sys

import pytest

from kerasrestart.experiments.records.run_folder import RunFolder, read_record


def test_a_folder_is_held_by_one_process_until_it_ends(tmp_path):
    code = (
        "import sys, os, signal; from kerasrestart.experiments.records.run_folder import RunFolder\n"
        "folder = RunFolder(sys.argv[1], 'run', resume=True); folder.write_flags({})\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    import kerasrestart

    root = str(kerasrestart.__path__[0]) + "/.."
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": root},
    )  # fmt: skip
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match="in use by a run that has not ended"):
        RunFolder(tmp_path, "run", resume=True)
    holder.kill()
    holder.wait()
    folder = RunFolder(tmp_path, "run", resume=True)
    folder.release()
    RunFolder(tmp_path, "run", resume=True)


def test_a_folder_that_is_there_is_refused_unless_it_is_gone_on_with(tmp_path):
    folder = RunFolder(tmp_path, "run")
    folder.write_flags({})
    folder.release()
    with pytest.raises(ValueError, match="is there already"):
        RunFolder(tmp_path, "run")


def test_nothing_stays_of_a_folder_that_nothing_was_written_to(tmp_path):
    RunFolder(tmp_path / "logs", "run").release()
    assert list((tmp_path / "logs").iterdir()) == []


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds no run to go on with \(thesis.tex"):
        RunFolder(tmp_path, "run", resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is there already"):
        RunFolder(tmp_path, "file", resume=True)


def test_the_history_keeps_whole_epochs_only(tmp_path):
    folder = RunFolder(tmp_path, "run")
    folder.keep_epochs(2)
    assert not folder.history.exists()
    lines = ["epoch,loss\r\n", "0,1.5\r\n", "1,0.25\r\n", "2,0.125\r\n", "3,0."]
    folder.history.write_bytes("".join(lines).encode())
    scores = ['{"epoch": 0, "scores": {}}\n', '{"epoch": 1, "scores": {}}\n', '{"epoch": 2, "sc']
    folder.scores.write_text("".join(scores))
    folder.keep_epochs(9)
    assert folder.history.read_bytes() == "".join(lines[:4]).encode()
    assert folder.scores.read_text() == "".join(scores[:2])
    folder.keep_epochs(2)
    assert folder.history.read_bytes() == "".join(lines[:3]).encode()
    other = RunFolder(tmp_path, "other")
    other.keep_epochs(1, folder.path)
    assert other.history.read_bytes() == "".join(lines[:2]).encode()
    assert other.scores.read_text() == scores[0]
    folder.keep_epochs(0)
    assert folder.history.read_bytes() == folder.scores.read_bytes() == b""


@pytest.mark.parametrize("text", ["", "{", "[]", '{"finished": null}', "7"])
def test_a_record_that_is_not_of_an_ended_run_is_none(tmp_path, text):
    assert read_record(tmp_path) is None
    (tmp_path / "run.json").write_text(text)
    assert read_record(tmp_path) is None
    (tmp_path / "run.json").write_text(json.dumps({"finished": "so"}))
    assert read_record(tmp_path) == {"finished": "so"}
