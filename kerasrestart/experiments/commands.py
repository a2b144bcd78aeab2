"""The commands of `python -m kerasrestart`."""

from __future__ import annotations

import importlib
import sys

import kerasrestart
from kerasrestart.experiments.setting import did_you_mean

COMMANDS = {
    "main": "trains a network with restarts and reports each round",
    "study": "compares ways to restart over several seeds, and writes the report",
    "report": "writes the report of a run as one HTML file",
}


def entry_point() -> None:
    """Starts the command that is named, or lists all of them."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        sys.argv[1:] = rest
        importlib.import_module(f"kerasrestart.{name}").entry_point()
    elif name in ("-h", "--help"):
        print("usage: python -m kerasrestart COMMAND [flags]\n\ncommands:")
        for command, text in COMMANDS.items():
            print(f"  {command:8}{text}")
        print("\npython -m kerasrestart COMMAND --help lists the flags of a command.")
    elif name == "--version":
        print(f"kerasrestart {kerasrestart.__version__}")
    else:
        print(
            f"error: The command must be one of {', '.join(COMMANDS)}. Received: {name!r}"
            f"{did_you_mean(name, COMMANDS)}",
            file=sys.stderr,
        )
        sys.exit(2)
