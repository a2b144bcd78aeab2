"""Writes docs/models.md: `python -m tests.zoo.models_page`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import kerasrestart as kr
from tests.zoo import attention, blocks, generative, modern, plain, training_steps  # noqa: F401
from tests.zoo.kinds import KINDS, Example

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "models.md"
HEAD = """# Models

What `PartialRestart` watches in kinds of model that people train, without a change to the model.
Each row is a test in `tests/zoo`: a tiny model is trained for two epochs with a restart between
them. Filters are those of all convolutions; units of dense layers are watched with `layers=".*"`.
Filters that make an output of the model and filters that do not train are never restarted.
What a network inside the model makes and another one reads in place of data, such as a generator's
image, is an output, too, unless a loss trains both.
`python -m tests.zoo.models_page` writes this page.

Two kinds are left out, since they cannot be scored correctly:

- A filter of a ConvLSTM acts on the other filters of the next step, inside a loop where no gradient
  can be read. A score that is read at the layer's outputs alone would miss that part: a filter that
  serves as memory would score zero, and be restarted again and again.
- `TimeDistributed` with an unknown number of frames runs its layer inside a `vectorized_map`, where
  nothing can be read. With a fixed number, as in `keras.Input((16, 64, 64, 3))`, all is watched.

| kind | filters | watched | out of reach | not watched, because a layer |
|---|---:|---:|---:|---|
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the page."""

    kind: str
    filters: int
    watched: int
    out_of_reach: int
    not_watched: str

    def __str__(self):
        return f"| {' | '.join(map(str, dataclasses.astuple(self)))} |"


def train(example: Example, **options) -> tuple[kr.PartialRestart, keras.callbacks.History]:
    """Trains a kind for two epochs, with a restart between them."""
    restart = kr.PartialRestart(
        select=kr.Fraction(0.25),
        when=kr.EveryEpochs(1, monitor="loss"),
        max_restarts=1,
        **options,
    )
    batch_size = 4 if isinstance(keras.tree.flatten(example.x)[0], np.ndarray) else None
    history = example.model.fit(
        example.x, example.y, batch_size=batch_size, epochs=2, verbose=0, callbacks=[restart]
    )
    return restart, history


def row(kind: str, restart: kr.PartialRestart) -> Row:
    """The line of a kind, from the callback that has watched it."""
    found = restart.scorer.filter_layers
    watched = sum(len(scores) for scores in restart.scores.values())
    reasons = {**found.left_out, **restart.scorer.left_out} if watched < found.total else {}
    reasons = {why for why in reasons.values() if "dense layer" not in why}
    return Row(
        kind, found.total, watched, sum(found.out_of_reach.values()), "; ".join(sorted(reasons))
    )


def read(page: pathlib.Path = PAGE) -> dict[str, Row]:
    """The lines of the page, by kind."""
    rows = {}
    for line in page.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[1].isdigit():
            rows[cells[0]] = Row(cells[0], *map(int, cells[1:4]), cells[4])
    return rows


def main() -> None:
    """Writes the page."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = []
    for kind, build in KINDS.items():
        keras.utils.set_random_seed(0)
        rows.append(row(kind, train(build())[0]))
        keras.backend.clear_session()
    PAGE.write_text(HEAD + "\n".join(map(str, rows)) + "\n")


if __name__ == "__main__":
    main()
