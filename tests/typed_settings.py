"""Settings of a run as they are typed."""

from kerasrestart.experiments.setting import parse_words
from kerasrestart.experiments.settings import SETTINGS, RunSettings


def parse_settings(arguments):
    """The settings that flags such as `--model=mininet` or `--noaugment` describe."""
    words = [argument.removeprefix("--") for argument in arguments]
    return RunSettings(**parse_words(words, SETTINGS))
