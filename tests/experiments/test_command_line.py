"""What the command lines share."""

import os
import platform
import subprocess
import sys

import pytest

from kerasrestart.experiments.command_line import set_up_tensorflow

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"


@pytest.mark.parametrize(
    ("machine", "given", "then"),
    [("x86_64", None, "1"), ("AMD64", None, "1"), ("x86_64", "0", "0"), ("aarch64", None, None)],
)
def test_onednn_is_turned_on_where_it_helps_and_nobody_has_said_otherwise(
    monkeypatch, machine, given, then
):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setenv(ONEDNN, given or "")
    if given is None:
        monkeypatch.delenv(ONEDNN)
    set_up_tensorflow()
    assert os.environ.get(ONEDNN) == then


@pytest.mark.parametrize(
    ("module", "text", "flag"),
    [
        ("kerasrestart.main", "Trains a network, restarts", "--max_restarts"),
        ("kerasrestart.study", "Compares ways to restart", "--arms"),
        ("kerasrestart.report", "Writes the report of a run", "--help"),
    ],
)
def test_a_console_script_shows_the_help_of_its_program(module, text, flag):
    script = f"import sys\nfrom {module} import entry_point\nsys.exit(entry_point())"
    command = [sys.executable, "-c", script, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.lstrip().startswith(text)
    assert flag in done.stdout
