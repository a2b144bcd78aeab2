"""What the command lines share: flags are refused in one line, before any work."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags

from kerasrestart.experiments.startup import open_closed_streams


def set_up_tensorflow() -> None:
    """Sets what TensorFlow reads off the environment when it is imported, where nobody has.

    On x86 that is oneDNN: TensorFlow turns it on by itself only where the CPU has AVX-512 VNNI, but
    convolutions train twice as fast with it where there is AVX2 alone (docs/performance.md).
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no word of what the CPU could do besides
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def start(
    main: Callable[[list[str]], None], parse: Callable[[list[str]], list[str]] | None = None
) -> None:
    """Runs a program as `absl.app.run` does, whether as a module or by a console script.

    absl's `--help` shows the text and flags of the module that python was started with. A console
    script is another module, with neither.

    Args:
        main: The program's main function; its module has the text and the flags.
        parse: What parses the command line. Defaults to `parse_or_exit`.
    """
    open_closed_streams()
    sys.modules["__main__"].__doc__ = sys.modules[main.__module__].__doc__
    for flag in flags.FLAGS.get_key_flags_for_module(main.__module__):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(main, flags_parser=parse or parse_or_exit)


def parse_or_exit(argv: list[str]) -> list[str]:
    """Parses flags for `absl.app.run`.

    Args:
        argv: The command line, program name first.

    Returns:
        The program name alone.

    Raises:
        SystemExit: A flag is wrong, or an argument is left over; the status is 2.
    """
    try:
        rest = flags.FLAGS(argv)
        if rest[1:]:
            raise flags.Error(f"expected flags only, such as --model=mininet; received {rest[1]!r}")
    except flags.Error as error:
        fail(str(error), status=2)
    return rest


def fail(message: str, status: int = 1) -> NoReturn:
    """Ends the program with one line on standard error.

    Args:
        message: What was wrong, what was received, what would be right.
        status: Exit status. Defaults to 1.
    """
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
