"""Where a run starts: at the beginning, where it was killed, or at another run's baseline."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from kerasrestart.experiments.data import ImageData
from kerasrestart.experiments.paths import user_path
from kerasrestart.experiments.records.growing_files import ROUNDS, closed_records, kept_parts
from kerasrestart.experiments.records.run_folder import BASELINE, RunFolder, check_folder
from kerasrestart.experiments.run.state_folder import (
    SavedState,
    StateFolder,
    read_state,
)
from kerasrestart.experiments.settings import AFTER_BASELINE, RunSettings
from kerasrestart.experiments.sources import changed_sources, source_hashes


@dataclasses.dataclass(frozen=True)
class StartingPoint:
    """Where a run starts.

    Attributes:
        epoch: Its first epoch.
        state: The state to restore; None at the beginning.
        source: The folder with the records of the epochs before; None: the run's own.
        done: Whether no epoch is left to train, only the run's end is.
        seconds: Duration of the run so far.
        rollbacks: Where it was rolled back, see `RunCheckpoint.rollbacks`.
        message: What to print about it, as the end of a line.
    """

    epoch: int = 0
    state: SavedState | None = None
    source: pathlib.Path | None = None
    done: bool = False
    seconds: float = 0.0
    rollbacks: tuple[dict[str, int], ...] = ()
    message: str = ""

    @property
    def marks(self) -> Mapping[str, Any]:
        """The parts of the growing files that belong to the state."""
        return {} if self.state is None else self.state.content["files"]


def identity_of(
    settings: RunSettings,
    images: ImageData,
    environment: Mapping[str, Any],
    weights: str | None = None,
    replicas: int = 1,
) -> dict[str, Any]:
    """What a run and the process that resumes it must have in common.

    Args:
        settings: Its settings.
        images: Its data.
        environment: What it depends on besides, see `describe_environment`.
        weights: SHA-256 of the file of its initial weights. Defaults to None: there is none.
        replicas: How many replicas each batch is split over. Defaults to 1.
    """
    return {
        "settings": settings.to_dict(),
        "data": images.fingerprint,
        "weights": weights,
        "replicas": replicas,
        "environment": dict(environment),
        "sources": source_hashes(settings.to_dict()),
    }


def starting_point(
    folder: RunFolder, settings: RunSettings, identity: Mapping[str, Any]
) -> StartingPoint:
    """Finds where a run has to start; deletes damaged states, and writes nothing.

    Args:
        folder: Its folder.
        settings: Its settings.
        identity: What `identity_of` returned.

    Raises:
        ValueError: The run in the folder, or that of the baseline, had other settings, data or
            weights; there is no baseline; its history or scores are not those of the state; or no
            state is whole.
    """
    if (found := StateFolder(folder.state).read_last_good()) is not None:
        state, damage = found
        _check_same(settings, identity, state.content["identity"], frozenset(), folder.path)
        state = with_closed_records(state, folder.path)
        content = state.content
        note = f" ({damage} Resumed from the state before it.)" if damage else ""
        epoch = content["next_epoch"]
        return StartingPoint(
            epoch,
            state,
            done=content["done"],
            seconds=content["seconds"],
            rollbacks=tuple(content["rollbacks"]),
            message=f", resumed after epoch {epoch}{note}" if epoch else note,
        )
    if settings.baseline is None:
        return StartingPoint()
    check_folder(folder.path, resume=True, baseline=settings.baseline)
    source = user_path(settings.baseline, "baseline")
    state = read_state(source / BASELINE)
    _check_same(settings, identity, state.content["identity"], AFTER_BASELINE, source)
    state = with_closed_records(state, source)
    epoch = state.content["next_epoch"]
    return StartingPoint(
        epoch,
        state,
        source=source,
        rollbacks=tuple(state.content["rollbacks"]),
        message=f", resumed after epoch {epoch} of the baseline {source}",
    )


def check_ended(
    record: Mapping[str, Any],
    settings: RunSettings,
    identity: Mapping[str, Any],
    folder: pathlib.Path,
) -> None:
    """Checks that a run which has ended is the one that these settings describe.

    Args:
        record: Its record, with which its folder can be without any state.
        settings: The settings.
        identity: What `identity_of` returned for them. Replicas are not compared: a record has no
            number of them.
        folder: The run's folder, for the error.

    Raises:
        ValueError: It had other settings, data or weights.
    """
    theirs = {
        **record,
        "data": record["data"].get("sha256"),
        "weights": (record["weights"] or {}).get("sha256"),
        "replicas": identity["replicas"],
    }
    _check_same(settings, identity, theirs, frozenset(), folder)


def with_closed_records(state: SavedState, folder: pathlib.Path) -> SavedState:
    """Adds the earlier restarts and rounds, which a state leaves to `rounds.jsonl`.

    Args:
        state: The state as it was read.
        folder: The folder with the growing files of its run.

    Raises:
        RecordError: One of these files is not that of the state.
    """
    parts = kept_parts(folder, state.content["files"])
    events, rounds = closed_records(parts[ROUNDS], str(folder / ROUNDS))
    restart = state.content["restart"]
    restart = {
        **restart,
        "events": events + restart["events"],
        "rounds": rounds + restart["rounds"],
    }
    return dataclasses.replace(state, content={**state.content, "restart": restart})


def _check_same(
    settings: RunSettings,
    mine: Mapping[str, Any],
    theirs: Mapping[str, Any],
    free: frozenset[str],
    folder: pathlib.Path,
) -> None:
    differ = settings.differences(theirs["settings"], free)
    if mine["data"] != theirs["data"]:
        differ.append("the images have changed")
    if mine["weights"] != theirs["weights"]:
        differ.append("the initial weights have changed")
    if mine["replicas"] != theirs["replicas"]:
        differ.append(f"replicas were {theirs['replicas']}, are {mine['replicas']}")
    sources = theirs.get("sources", {})
    differ += changed_sources(sources, mine["sources"], free)
    was, now = theirs["environment"], mine["environment"]
    differ += [
        f"{name} was {was.get(name)!r}, is {now.get(name)!r}"
        for name in sorted(was.keys() | now.keys())
        if was.get(name) != now.get(name)
    ]
    if differ:
        raise ValueError(
            f"The run in {folder} cannot be resumed with other settings: {'; '.join(differ)}. Pass "
            "the same settings, or another --run_name or --logdir."
        )
