"""What the command lines share: flags are refused in one line, before any work."""

from __future__ import annotations

import sys
from typing import NoReturn

from absl import flags


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
