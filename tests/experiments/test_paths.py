"""Homes, encodings and file systems that are not as usual: one line, or the right answer."""

import errno
import fcntl
import os
import pathlib
import pwd
import subprocess
import sys
import types

import pytest

import kerasrestart
from kerasrestart.experiments import data
from kerasrestart.experiments.data import load
from kerasrestart.experiments.data.errors import UnavailableError
from kerasrestart.experiments.data.tfds_copy import resolve_data_dir
from kerasrestart.experiments.models.weight_files import locate_alexnet_weights
from kerasrestart.experiments.paths import as_utf8, is_utf8, user_path
from kerasrestart.experiments.records.run_folder import RunFolder
from kerasrestart.experiments.report import command as report_command
from kerasrestart.experiments.run import command, strategies, train
from kerasrestart.experiments.study import command as study_command

ROOT = pathlib.Path(kerasrestart.__file__).parents[1]


@pytest.fixture
def no_home(monkeypatch):
    """A container whose user has a number and no name."""

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "TFDS_DATA_DIR", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_a_tilde_is_the_home_folder_in_every_path(home):
    (home / "w.safetensors").write_bytes(b"")
    assert user_path("~/x", "logdir") == home / "x"
    assert locate_alexnet_weights("~/w.safetensors") == home / "w.safetensors"
    assert resolve_data_dir("~/data") == home / "data"
    parsed = study_command.PROGRAM.parse(["--study_name=s", "--logdir=~/logs", "--arms=none"])
    assert study_command.read_plan(parsed).folder == home / "logs" / "s"


def test_a_run_below_a_tilde_is_written_below_the_home_folder(home, monkeypatch):
    asked = []
    monkeypatch.setattr(strategies, "set_up_devices", lambda: None)
    monkeypatch.setattr(train, "run", lambda *_, **options: asked.append(options))
    monkeypatch.setattr(data, "load", lambda *_, **__: types.SimpleNamespace(note=""))
    command.main(command.PROGRAM.parse(["--dataset=shapes", "--logdir=~/logs", "--run_name=r"]))
    assert asked[0]["logdir"] == str(home / "logs")
    assert not pathlib.Path("~").exists()


def test_without_a_home_folder_a_tilde_is_refused_and_nothing_is_written(
    no_home, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^logdir must not begin with '~'.*Received: '~/x'"):
        user_path("~/x", "logdir")
    with pytest.raises(ValueError, match="data_dir must not begin with '~'"):
        load("auto", "~/x")
    with pytest.raises(ValueError, match="weights must not begin with '~'"):
        locate_alexnet_weights("~/x.safetensors")
    monkeypatch.setattr(sys, "argv", ["report", "~/logs"])
    with pytest.raises(SystemExit) as ended:
        report_command.entry_point()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: FOLDER must not begin with '~'")
    assert list(tmp_path.iterdir()) == []


def test_without_a_home_folder_the_default_data_are_not_available(no_home):
    with pytest.raises(UnavailableError, match="the home folder is not known"):
        load("cifar10")
    assert "not prepared in ~/tensorflow_datasets" in load("auto", shapes_examples=200).note


def test_without_a_home_folder_the_published_weights_need_a_place(no_home, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed (the extra 'torch')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"TORCH_HOME.*must not begin with '~'"):
        locate_alexnet_weights("imagenet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("word", "encoding"),
    [
        (b"--logdir=caf\xe9", {}),
        (b"--data_dir=caf\xe9", {}),
        ("--logdir=été".encode(), {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    ],
)
def test_a_path_that_tensorflow_would_read_otherwise_is_refused(tmp_path, word, encoding):
    done = subprocess.run(
        [sys.executable, "-m", "kerasrestart.main", word],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **encoding},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert b"must be a text of one line in UTF-8. Received: " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_texts_are_utf8_or_replaced():
    assert is_utf8("été/日")
    assert not is_utf8("caf\udce9")
    assert as_utf8("caf\udce9 é") == "caf? é"


@pytest.mark.parametrize("code", ["ENOTSUP", "ENOLCK", "ENOSYS"])
def test_without_locks_a_file_names_the_process_that_holds_a_folder(tmp_path, monkeypatch, code):
    number = getattr(errno, code)

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    folder = RunFolder(tmp_path, "run", resume=True)
    folder.write_flags({})
    with pytest.raises(ValueError, match="in use by a run that has not ended"):
        RunFolder(tmp_path, "run", resume=True)
    folder.release()
    RunFolder(tmp_path, "run", resume=True).release()
    killed = (
        "import errno, fcntl, os, sys\n"
        f"def refuse(*_): raise OSError({number}, 'no locks')\n"
        "fcntl.flock = refuse\n"
        "from kerasrestart.experiments.records.run_folder import RunFolder\n"
        "RunFolder(sys.argv[1], 'run', resume=True); os.kill(os.getpid(), 9)\n"
    )
    words = [sys.executable, "-W", "ignore", "-c", killed, str(tmp_path)]
    ended = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert ended.returncode == -9
    RunFolder(tmp_path, "run", resume=True).release()


def test_another_error_of_a_lock_is_not_taken_for_a_missing_one(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="Input/output error"):
        RunFolder(tmp_path, "run")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"KERAS_BACKEND": "jax"}, "KERAS_BACKEND must be 'tensorflow'. Received: 'jax'"),
        ({"KERAS_HOME": "{tmp}"}, "its keras.json (in $KERAS_HOME or ~/.keras) must be valid"),
    ],
)
def test_the_library_says_in_one_line_what_is_wrong_with_keras(tmp_path, variables, message):
    (tmp_path / "keras.json").write_text("[]")
    variables = {name: value.format(tmp=tmp_path) for name, value in variables.items()}
    code = "import kerasrestart as kr; kr.Fraction(0.1); print('fine'); kr.PartialRestart"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "fine\n"
    assert done.stderr.splitlines()[-1].startswith("ImportError: ")
    assert message in done.stderr.splitlines()[-1]


def test_a_study_refuses_another_backend_before_its_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["study", "--study_name=s", "--arms=none", "--seeds=0"])
    with pytest.raises(SystemExit) as ended:
        study_command.entry_point()
    assert ended.value.code == 1
    assert "error: KERAS_BACKEND must be 'tensorflow' or unset" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_second_study_in_a_folder_is_refused_while_the_first_runs(tmp_path, monkeypatch, capsys):
    from kerasrestart.experiments.records.folder_lock import FolderLock

    monkeypatch.chdir(tmp_path)
    (tmp_path / "tf_logs" / "s").mkdir(parents=True)
    lock = FolderLock(tmp_path / "tf_logs" / "s", "study", "--study_name or --logdir")
    words = ["study", "--study_name=s", "--dataset=shapes", "--arms=none", "--seeds=0"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        study_command.entry_point()
    lock.release()
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (1, "")
    assert "s is in use by a study that has not ended: wait for it, or pass another" in err
