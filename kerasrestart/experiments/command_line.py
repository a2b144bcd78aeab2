"""`Program`: a command line that checks its flags before any work and fails in one line."""

from __future__ import annotations

import dataclasses
import logging as python_logging
import os
import platform
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn

from absl import flags, logging

import kerasrestart
from kerasrestart.experiments.interruption import RunStoppedError, exit_status
from kerasrestart.experiments.setting import Setting, SettingError, did_you_mean
from kerasrestart.experiments.startup import open_closed_streams
from kerasrestart.network.text import one_line

_LONGEST = 1000  # characters of an error
VERBOSITY = Setting(
    "verbosity",
    int,
    -1,
    "run",
    "What to log: -1 warnings, 0 information, 1 all, such as where an error was raised and what "
    "TensorFlow writes while it starts.",
    least=-3,
    most=9,
)


@dataclasses.dataclass(frozen=True)
class Parsed:
    """A command line that was read.

    Attributes:
        values: All flags, by name.
        given: Those that were typed, or are in a flagfile.
        arguments: The words that are not flags.
        typed: The command line, without the program's name.
    """

    values: Mapping[str, Any]
    given: Mapping[str, Any]
    arguments: Sequence[str]
    typed: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Program:
    """A command line: its text, its flags and its arguments.

    Attributes:
        module: The module that `python -m` starts.
        text: What it does, at the top of `--help`.
        settings: Its flags, by name, in the order of `--help`.
        hidden: Names of flags that `--help` leaves out. Defaults to none.
        arguments: What it takes besides flags, such as "RUN". Defaults to "": nothing.
    """

    module: str
    text: str
    settings: Mapping[str, Setting]
    hidden: Collection[str] = ()
    arguments: str = ""

    def start(self, main: Callable[[Parsed], Any], *, stopped: str = "Stopped.") -> NoReturn:
        """Reads the command line, calls `main` and ends the process.

        Args:
            main: The work. Its ValueError, OSError and RunStoppedError become one line.
            stopped: The line after Ctrl-C or SIGTERM. Defaults to "Stopped.".
        """
        open_closed_streams()
        parsed = self.parse(sys.argv[1:])
        flags.FLAGS.mark_as_parsed()  # of absl itself, for its logging
        logging.set_verbosity(parsed.values["verbosity"])
        logging.use_absl_handler()
        # Matplotlib warns about its cache; with all that they log, a page takes 3,000 lines.
        level = python_logging.ERROR if parsed.values["verbosity"] < 1 else python_logging.WARNING
        for name in ("matplotlib", "markdown_it"):
            python_logging.getLogger(name).setLevel(level)
        try:
            main(parsed)
        except SettingError as error:
            fail(f"{error}{_flagfiles(sys.argv[1:])}", status=2)
        except (ValueError, OSError, RunStoppedError) as error:
            logging.debug("The error was raised here:", exc_info=True)
            fail(self._in_flags(str(error)), getattr(error, "status", 1))
        except KeyboardInterrupt as error:
            fail(stopped, exit_status(error))
        sys.exit(0)

    def parse(self, words: Sequence[str]) -> Parsed:
        """Reads a command line.

        Args:
            words: The words after the program's name.

        Raises:
            SystemExit: `--help` or `--version` was asked for, with status 0; or a flag is wrong, or
                there is an argument too many, with status 2.
        """
        if any(word in ("-h", "-help", "--help", "--helpshort", "--helpfull") for word in words):
            _show(self.help())
            sys.exit(0)
        if "--version" in words:
            print(f"kerasrestart {kerasrestart.__version__}")
            sys.exit(0)
        values = self._flag_values()
        try:
            arguments = values([self.module, *words])[1:]
        except flags.UnrecognizedFlagError as error:
            known = [f"--{name}" for name in self.settings]
            hint = did_you_mean(f"--{error.flagname}", known)
            message = f"--{error.flagname} is not a flag of {self.module}{hint}"
            fail(f"{message}{_flagfiles(words)}", status=2)
        except flags.CantOpenFlagFileError as error:
            cause = error.__context__
            file, reason = getattr(cause, "filename", ""), getattr(cause, "strerror", error)
            fail(f"--flagfile must be a file of flags. Received: {file!r}: {reason}", status=2)
        except UnicodeDecodeError:
            fail(f"A flagfile must be text in UTF-8{_flagfiles(words)}", status=2)
        except (flags.Error, ValueError) as error:
            fail(f"{error}{_flagfiles(words)}", status=2)
        except RecursionError:  # absl looks for a flag of a similar name
            fail(f"A flag has a name too long for any flag{_flagfiles(words)}", status=2)
        if arguments and not self.arguments:
            fail(
                "The command line must have flags only, such as "
                f"--{next(iter(self.settings))}=VALUE. Received: {arguments[0]!r}"
                f"{_flagfiles(words)}",
                status=2,
            )
        found = {name: values[name] for name in (*self.settings, VERBOSITY.name)}
        return Parsed(
            {name: flag.value for name, flag in found.items()},
            {name: flag.value for name, flag in found.items() if flag.present},
            arguments,
            words,
        )

    def from_values(self, given: Mapping[str, Any]) -> Parsed:
        """Takes flags as Python values, as if they had been typed.

        Args:
            given: By name, the values. None: the default.

        Raises:
            SettingError: A name is not known, or a value is wrong.
        """
        known = {**self.settings, VERBOSITY.name: VERBOSITY}
        given = {name: value for name, value in given.items() if value is not None}
        typed = []
        for name, value in given.items():
            if name not in known:
                hint = did_you_mean(name, known)
                raise SettingError(f"{name!r} is not a setting of {self.module}{hint}")
            setting = known[name]
            setting.check(value)
            if setting.repeated and setting.type is list:
                typed += [f"--{name}={item}" for item in value]
            else:
                typed.append(setting.as_flag(value))
        defaults = {name: setting.default for name, setting in known.items()}
        return Parsed({**defaults, **given}, given, (), typed)

    def _in_flags(self, message: str) -> str:
        """A message that begins with an argument of the library, with the flag of that name."""
        name, _, rest = message.partition(" ")
        is_flag = name in self.settings and rest.startswith(("must ", "cannot "))
        return f"--{message}" if is_flag else message

    def _flag_values(self) -> flags.FlagValues:
        values = flags.FlagValues()
        values.set_gnu_getopt()  # flags may follow arguments
        for setting in (*self.settings.values(), VERBOSITY):
            values[setting.name] = _Flag(setting)
        if "precision" in self.settings:
            values["mixed_precision"] = _MixedPrecision(values["precision"])
        return values

    def help(self) -> str:
        """The text of `--help`."""
        width = min(max(shutil.get_terminal_size((80, 24)).columns, 40), 100)
        groups: dict[str, list[Setting]] = {}
        for name, setting in {**self.settings, VERBOSITY.name: VERBOSITY}.items():
            if name not in self.hidden:
                groups.setdefault(setting.group, []).append(setting)
        usage = f"python -m {self.module} [flags] {self.arguments}".strip()
        lines = [self.text.strip(), "", f"usage: {usage}"]
        for group, settings in groups.items():
            lines += ["", f"{group}:"]
            for setting in settings:
                lines.append(f"  {setting.usage()}")
                lines += textwrap.wrap(
                    setting.description(),
                    width,
                    initial_indent=" " * 6,
                    subsequent_indent=" " * 6,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
        lines += ["", "--flagfile=FILE reads flags from a file; --version prints the version."]
        return "\n".join(lines)


class _Flag(flags.Flag):
    """A flag of absl's that is read and checked by its `Setting`."""

    def __init__(self, setting: Setting):
        self.setting = setting
        super().__init__(
            flags.ArgumentParser(),
            flags.ArgumentSerializer(),
            setting.name,
            None,  # absl would read it as it is typed
            setting.help,
            boolean=setting.type is bool,
        )
        self.value = setting.default

    def parse(self, argument: str) -> None:
        """Takes a value as it is typed; a repeated flag adds to those before."""
        setting = self.setting
        is_list = setting.repeated and setting.type is list
        value = [argument] if is_list else setting.parse(argument)
        if setting.repeated and self.present:
            value = [*self.value, *value] if is_list else f"{self.value},{value}"
        self.value = value
        self.present += 1


class _MixedPrecision(flags.BooleanFlag):
    """`--mixed_precision`, the former name of `--precision=mixed_float16`."""

    def __init__(self, precision: flags.Flag):
        super().__init__("mixed_precision", None, "Use --precision=mixed_float16.")
        self._precision = precision

    def parse(self, argument: str) -> None:
        super().parse(argument)
        name = "mixed_float16" if self.value else "float32"
        print(f"warning: --mixed_precision is now --precision; using {name}.", file=sys.stderr)
        self._precision.parse(name)


def _show(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # as of `--help | head`; without this, Python reports it at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def set_up_tensorflow() -> None:
    """Sets environment variables that TensorFlow reads when it is imported, if they are not set.

    On x86 that is oneDNN: TensorFlow turns it on by itself only on CPUs with AVX-512 VNNI, but
    convolutions train twice as fast with it where there is AVX2 alone (docs/performance.md).
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no notes about unused CPU instructions
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def _flagfiles(words: Sequence[str]) -> str:
    """The end of a message about a flag that may be in a file."""
    pairs = zip(words, [*words[1:], ""], strict=True)
    split = [(*word.lstrip("-").partition("=")[::2], following) for word, following in pairs]
    files = [value or following for name, value, following in split if name == "flagfile"]
    return f" (flags were also read from {', '.join(files)})" if any(files) else ""


def fail(message: str, status: int = 1) -> NoReturn:
    """Ends the program with one line on standard error.

    Args:
        message: What would be right, and last what was received.
        status: Exit status. Defaults to 1.
    """
    line = one_line(message)
    if len(line) > _LONGEST:  # it repeats a value, such as all of a file
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    print(f"error: {line}", file=sys.stderr)
    sys.exit(status)
