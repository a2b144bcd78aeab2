"""What the files of a run must hold. They are validated here, when they are read.

A file may have been edited, cut short or written by something else. What passes has all fields, of
the right types and ranges, so that no reader has to check again.
"""

from __future__ import annotations

import json
import pathlib
from typing import Annotated, Any

import msgspec

from kerasrestart.network.text import one_line
from kerasrestart.restart.records import RestartEvent, Round
from kerasrestart.restart.when import RoundProgress

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
# A report has a column for each epoch.
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Seconds = Annotated[float, msgspec.Meta(ge=0, lt=1e12)]


class RecordError(ValueError):
    """A file of a run that does not hold what it must."""


class Row(msgspec.Struct):
    """A row of a run's table, as `kerasrestart.experiments.records.table.table_rows` makes it."""

    round: str
    data: str
    epochs: Count
    best_epoch: Count
    validation_accuracy: Share | None
    test_accuracy: Share | None
    test_accuracy_last: Share | None
    train_accuracy_last: Share | None
    restarted: dict[str, Count]


class Rollback(msgspec.Struct):
    """Where the loss diverged before a run was rolled back, both counted from 0."""

    epoch: Count
    batch: Count


class Timing(msgspec.Struct):
    """All in which two equal runs differ."""

    started: str
    seconds: Seconds
    folder: str
    sha256: str | None = None


class FileMark(msgspec.Struct):
    """The beginning of a file that a state or a record belongs to."""

    bytes: Size
    sha256: str


class RunRecord(msgspec.Struct):
    """`run.json`. `timing.sha256` is the hash of all else in it."""

    settings: dict[str, Any]
    versions: dict[str, str]
    environment: dict[str, Any]
    data: dict[str, Any]
    weights: dict[str, Any] | None
    events: list[RestartEvent]
    rounds: list[Round]
    rollbacks: list[Rollback]
    finished: str | None
    table: list[Row]
    timing: Timing
    sources: dict[str, str | None] = {}  # of your own code, by `setting=reference`
    files: dict[str, FileMark] = {}


class ClosedRecord(msgspec.Struct):
    """A line of `rounds.jsonl`: a round or a restart that will not change any more."""

    event: RestartEvent | None = None
    round: Round | None = None


class ScoreLine(msgspec.Struct):
    """A line of `scores.jsonl`."""

    epoch: Count
    scores: dict[str, list[float]]


class Identity(msgspec.Struct):
    """What a run and the process that resumes it must have in common."""

    settings: dict[str, Any]
    data: Any
    weights: str | None
    replicas: Count
    environment: dict[str, Any]
    sources: dict[str, str | None] = {}


class PendingContent(msgspec.Struct):
    """A restart that the next epoch begins with, see `PendingRestart`."""

    event: RestartEvent
    reader_input_means: dict[str, list[float]]


class RestartContent(msgspec.Struct):
    """The part of a `RestartState` that a state holds."""

    progress: RoundProgress
    rounds: list[Round]  # none before the first epoch
    events: list[RestartEvent]
    learning_rate: float | None
    finished: str | None
    scored_epoch: Count | None
    pending: PendingContent | None
    lowers_rate: bool


class Evaluation(msgspec.Struct):
    """Test accuracy of a round."""

    best: Share | None
    last: Share | None


class EvaluatorContent(msgspec.Struct):
    """What a `RoundEvaluator` holds besides weights; `evaluations` by number of the round."""

    evaluations: dict[Annotated[str, msgspec.Meta(pattern="^[0-9]{1,9}$")], Evaluation]
    best_value: float | None
    same: bool


class StateContent(msgspec.Struct):
    """What a state holds besides arrays."""

    next_epoch: Count
    done: bool
    identity: Identity
    variables: list[str]
    restart: RestartContent
    scores: dict[str, list[float]]
    evaluator: EvaluatorContent
    files: dict[str, FileMark]
    rollbacks: list[Rollback]
    seconds: Seconds


def validate(value: Any, schema: type, source: str) -> Any:
    """Returns plain data when a schema describes them.

    Args:
        value: As `json.loads` returned it.
        schema: A class of this module.
        source: Where the data come from, for the error.

    Raises:
        RecordError: The data are not what the schema describes.
    """
    try:
        msgspec.convert(value, schema)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{source} is not a valid {_name(schema)}: {one_line(error)}.") from error
    return value


def parse(text: str | bytes, schema: type, source: str) -> Any:
    """Returns what a JSON text holds when a schema describes it.

    Raises:
        RecordError: It is not JSON, or not what the schema describes.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{source} is not a valid {_name(schema)}: {one_line(error)}.") from error
    return validate(value, schema, source)


def read(path: pathlib.Path, schema: type) -> Any:
    """Returns what a JSON file holds when a schema describes it.

    Raises:
        FileNotFoundError: There is no such file.
        RecordError: It cannot be read, or is not what the schema describes.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:  # such as a folder of that name
        raise RecordError(f"{path} cannot be read: {error.strerror}.") from error
    return parse(content, schema, str(path))


def _name(schema: type) -> str:
    names: dict[type, str] = {RunRecord: "run record", StateContent: "state of a run"}
    return names.get(schema, "record")
