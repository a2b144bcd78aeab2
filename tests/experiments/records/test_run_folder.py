"""The folder of a run: held by one process, and nothing in it is lost."""

import subprocess
import sys

import pytest

from kerasrestart.experiments.records.run_folder import RunFolder, check_logdir


def test_a_folder_is_held_by_one_process_until_it_ends(tmp_path):
    code = (
        "import sys\n"
        "from kerasrestart.experiments.records.run_folder import RunFolder\n"
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


def test_a_folder_that_exists_is_refused_unless_it_is_resumed(tmp_path):
    folder = RunFolder(tmp_path, "run")
    folder.write_flags({})
    folder.release()
    with pytest.raises(ValueError, match="exists already"):
        RunFolder(tmp_path, "run")


def test_a_folder_that_nothing_was_written_to_is_removed(tmp_path):
    RunFolder(tmp_path / "logs", "run").release()
    assert list((tmp_path / "logs").iterdir()) == []


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds no run to resume \(thesis.tex"):
        RunFolder(tmp_path, "run", resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file must be a folder, .*: pass .* Received: a file$"):
        RunFolder(tmp_path, "file", resume=True)


def test_a_file_is_no_place_for_runs(tmp_path):
    check_logdir(tmp_path)
    check_logdir(tmp_path / "new" / "logs")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(
        ValueError, match=r"^logdir must be a folder.* Received: '.*/file', a file$"
    ):
        check_logdir(file)
    with pytest.raises(ValueError, match=rf"'{file}/x/y', {file} is a file$"):
        check_logdir(file / "x" / "y")


def test_a_run_that_was_killed_while_it_wrote_its_first_file_can_be_resumed(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".flags.txt.tmp").write_text("--mod")
    folder = RunFolder(tmp_path, "run", resume=True)
    folder.write_flags({"model": "mininet"})
    assert (folder.path / "flags.txt").read_text() == "--model=mininet\n"


@pytest.mark.parametrize("name", ["restart", "state", "train"])
def test_a_file_in_place_of_a_folder_is_refused(tmp_path, name):
    folder = RunFolder(tmp_path, "run")
    folder.write_flags({})
    folder.release()
    (folder.path / name).write_text("")
    with pytest.raises(ValueError, match=f"{name} must be a folder"):
        RunFolder(tmp_path, "run", resume=True)
