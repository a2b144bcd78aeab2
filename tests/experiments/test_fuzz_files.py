"""A file that was damaged is named in one line, or changes no answer; see the soak test."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.soak.fuzz_files import FaultError, Kind, make_kinds, trial

pytest.importorskip("torch", reason="PyTorch is not installed (the extra 'torch')")

NAMES = (
    *("run", "foreign_run", "runs", "foreign_runs", "study", "foreign_study", "state"),
    *("state_content", "baseline", "flags", "study_flags", "weights", "data_folder", "arrays"),
    *("decoded", "tf_config", "log"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def kinds(place):
    return make_kinds(place / "whole")


def test_every_kind_is_tried_here_or_takes_seconds(kinds):
    assert {name for name, kind in kinds.items() if not kind.is_slow} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_named_in_one_line_or_changes_nothing(name, kinds, place):
    @settings(max_examples=12, deadline=None, derandomize=True, database=None)
    @given(st.integers(0, 2**32))
    def check(seed):
        trial(kinds[name], place, random.Random(seed))

    check()


def test_a_traceback_and_another_answer_are_faults(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "file").write_text("0123456789" * 10)

    def crash(place):
        if (place / "file").read_text() != "0123456789" * 10:
            raise KeyError("x")
        return "whole"

    def trials(kind):
        for seed in range(50):
            trial(kind, tmp_path, random.Random(seed))

    with pytest.raises(FaultError, match="KeyError"):
        trials(Kind(("file",), crash))
    with pytest.raises(FaultError, match="silently another answer"):
        trials(Kind(("file",), lambda place: (place / "file").read_bytes()))
