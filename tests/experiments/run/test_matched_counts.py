"""As many filters as another run restarted."""

import json
import types

import numpy as np
import pytest

from kerasrestart.experiments.run.matched_counts import MatchedCounts
from tests.experiments.records.sample_record import sample_record

SCORES = {"a": np.array([3.0, 1.0, 2.0, 0.0]), "b": np.array([1.0, 0.0])}


def written(folder, *restarts, init="he"):
    events = [
        {
            **{"restart": number, "epoch": number, "reason": "", "initializer": init},
            "learning_rate": None,
            "layers": {
                name: {"filters": filters, "scores": []} for name, filters in layers.items()
            },
            "metrics_before": {},
        }
        for number, layers in enumerate(restarts, 1)
    ]
    record = sample_record(settings={"init": init}, events=events)
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def select(counts, number, exclude=None):
    counts.restart = types.SimpleNamespace(events=[None] * number)
    return {name: filters.tolist() for name, filters in counts(SCORES, exclude).items()}


def test_each_restart_has_the_counts_of_the_other_run(tmp_path):
    counts = MatchedCounts.of_run(written(tmp_path, {"a": [0, 2]}, {}, {"a": [1], "b": [0]}))
    assert select(counts, 0) == {"a": [1, 3]}
    assert select(counts, 1) == {}
    assert select(counts, 2) == {"a": [3], "b": [1]}
    assert select(counts, 3) == {}


def test_excluded_filters_are_not_selected():
    assert select(MatchedCounts([{"a": 2}]), 0, {"a": {3}}) == {"a": [1, 2]}


def test_a_layer_that_is_not_scored_is_refused():
    with pytest.raises(ValueError, match=r"Received: \['c'\]"):
        select(MatchedCounts([{"c": 1}]), 0)


@pytest.mark.parametrize("init", ["none", "slots", None])
def test_a_run_that_restarted_no_filters_is_refused(tmp_path, init):
    if init is not None:
        written(tmp_path, {"a": [0]}, init=init)
    with pytest.raises(ValueError, match=f"Received: .*{init or 'no run'}"):
        MatchedCounts.of_run(tmp_path)
