"""What libraries write to standard error is hidden while a run starts well, and never lost."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest

import kerasrestart

ROOT = pathlib.Path(kerasrestart.__file__).parents[1]


def errors_of(ending):
    """Standard error and exit status of a process in whose start a C library writes a line."""
    program = """
        import os, signal, sys
        from kerasrestart.experiments.startup import held_back_libraries

        with held_back_libraries():
            os.write(2, b"E0000 failed call to cuInit\\n")
            print("a warning of Python", file=sys.stderr)
            {ending}
        os.write(2, b"later\\n")
        print("still later", file=sys.stderr)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program).format(ending=ending)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stderr.splitlines(), done.returncode


def test_lines_of_libraries_are_hidden_where_all_goes_well():
    lines, status = errors_of("pass")
    assert (lines, status) == (["a warning of Python", "later", "still later"], 0)


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("raise ValueError", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.abort()", -signal.SIGABRT),
        ("os._exit(3)", 3),
    ],
)
def test_lines_of_libraries_are_shown_where_the_start_fails(ending, status):
    lines, received = errors_of(ending)
    assert "E0000 failed call to cuInit" in lines
    assert "a warning of Python" in lines
    assert "later" not in lines
    assert received == status


def test_lines_of_libraries_stay_hidden_where_data_are_wrong():
    ending = "from kerasrestart.experiments.data import DataError; raise DataError('1.png is cut')"
    lines, status = errors_of(ending)
    assert lines[-1].endswith("DataError: 1.png is cut")
    assert "E0000 failed call to cuInit" not in lines
    assert status == 1
