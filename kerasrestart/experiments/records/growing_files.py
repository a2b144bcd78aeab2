"""The files of a run that only grow, and the part of them that belongs to a state.

What a run writes each epoch must not grow with its length. So a state holds no history, scores or
earlier restarts: it holds the length and the hash of the files that do.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from kerasrestart.experiments.records.file_mark import read_marked
from kerasrestart.experiments.records.history import HISTORY
from kerasrestart.experiments.records.schema import ClosedRecord, parse
from kerasrestart.experiments.records.score_log import SCORES
from kerasrestart.restart.files import write_text

ROUNDS = "rounds.jsonl"
GROWING = (HISTORY, SCORES, ROUNDS)


class GrowingFiles:
    """History, scores, and the rounds and restarts that will not change any more.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = pathlib.Path(folder)
        self._lengths = dict.fromkeys(GROWING, 0)
        self._hashes = {name: hashlib.sha256() for name in GROWING}
        self._written = {"event": 0, "round": 0}

    def append_closed(self, events: Sequence[Any], rounds: Sequence[Any]) -> None:
        """Appends to `rounds.jsonl` what it does not hold yet.

        Args:
            events: All restarts that are complete, from the first, as plain data.
            rounds: All rounds that are complete.
        """
        lines = []
        for kind, records in (("event", events), ("round", rounds)):
            lines += [json.dumps({kind: record}) for record in records[self._written[kind] :]]
            self._written[kind] = len(records)
        if lines:
            with (self.folder / ROUNDS).open("a") as file:
                file.write("\n".join(lines) + "\n")

    def marks(self) -> dict[str, dict[str, Any]]:
        """Flushes the files to disk, and describes each as it is now.

        Returns:
            By name, `bytes` and `sha256`.
        """
        for name in GROWING:
            if not (self.folder / name).exists():
                continue
            with (self.folder / name).open("r+b") as file:
                os.fsync(file.fileno())
                file.seek(self._lengths[name])
                added = file.read()
            self._hashes[name].update(added)
            self._lengths[name] += len(added)
        return {
            name: {"bytes": self._lengths[name], "sha256": self._hashes[name].hexdigest()}
            for name in GROWING
        }

    def restore(
        self, marks: Mapping[str, Mapping[str, Any]], source: pathlib.Path | None = None
    ) -> None:
        """Cuts the files to what they were when `marks` described them.

        Args:
            marks: What `marks` returned; empty: the files become empty.
            source: The folder to take them from. Defaults to None: this one.

        Raises:
            RecordError: A file is missing, or is another one; nothing is changed.
        """
        kept = kept_parts(source or self.folder, marks)
        for name, content in kept.items():
            path = self.folder / name
            if path.exists() if not content else read_marked(path, None) != content:
                write_text(path, content.decode())
            self._lengths[name] = len(content)
            self._hashes[name] = hashlib.sha256(content)
        events, rounds = closed_records(kept[ROUNDS], str((source or self.folder) / ROUNDS))
        self._written = {"event": len(events), "round": len(rounds)}


def kept_parts(folder: pathlib.Path, marks: Mapping[str, Mapping[str, Any]]) -> dict[str, bytes]:
    """Reads the parts of the growing files in a folder that belong to a state.

    Raises:
        RecordError: A file is missing, or is another one.
    """
    empty = {"bytes": 0, "sha256": ""}
    return {name: read_marked(folder / name, marks.get(name, empty)) for name in GROWING}


def closed_records(content: bytes, source: str) -> tuple[list[dict], list[dict]]:
    """Reads restarts and rounds off a `rounds.jsonl`.

    Args:
        content: What the file holds.
        source: Its name, for errors.

    Returns:
        Restarts and rounds, as plain data.

    Raises:
        RecordError: A line is neither.
    """
    lines = [parse(line, ClosedRecord, source) for line in content.splitlines()]
    return (
        [line["event"] for line in lines if line.get("event")],
        [line["round"] for line in lines if line.get("round")],
    )
