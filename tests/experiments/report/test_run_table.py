"""The table of a run on pages and in terminals."""

import io

import pytest

from kerasrestart.experiments.report.run_table import print_run_table, run_table_markdown


def record(layers=19, **changes):
    row = {
        "round": "baseline", "data": "cifar10", "epochs": 200, "best_epoch": 149,
        "validation_accuracy": 1.0, "test_accuracy": 0.4321, "test_accuracy_last": 0.41,
        "train_accuracy_last": 1.0, "restarted": {},
    }  # fmt: skip
    names = [f"stage{n}_block3_conv2" for n in range(layers)]
    later = {**row, "round": "restart 10", "best_epoch": 1999, "restarted": dict.fromkeys(names, 4)}
    events = [{"restart": 10, "layers": {name: {"scores": [1.0] * 40} for name in names}}]
    return {"table": [{**row, **changes}, {**later, **changes}], "events": events}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_80_columns_of_a_terminal_and_sums_the_layers(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    file = Terminal()
    print_run_table(record(), file)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "76 of 760 in 19 layers" in file.getvalue()
    assert "cifar10" not in file.getvalue()  # one word in every row


def test_a_redirected_table_is_plain_text():
    file = io.StringIO()
    print_run_table(record(), file)
    lines = file.getvalue().splitlines()
    assert file.getvalue().isascii()
    assert "\x1b" not in file.getvalue()
    assert max(map(len, lines)) <= 80
    row = ["restart", "10", "200", "2000", "100.00", "100.00", "43.21", "41.00"]
    assert [*row, *["76", "of", "760", "in", "19", "layers"]] in [line.split() for line in lines]


def test_a_measure_without_values_has_no_column():
    untested = {"test_accuracy": None, "test_accuracy_last": None, "validation_accuracy": None}
    file = io.StringIO()
    print_run_table(record(**untested), file)
    head = " ".join(file.getvalue().splitlines()[0:2])
    assert "train" in head
    assert "test" not in head
    assert "val." not in head


def test_without_standard_output_nothing_is_printed_and_nothing_fails(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    print_run_table(record())


def test_the_markdown_table_has_one_line_for_each_round():
    lines = run_table_markdown(record(layers=1)).splitlines()
    assert len(lines) == 4
    cells = [cell.strip() for cell in lines[-1].strip("|").split("|")]
    assert cells[0] == "restart 10"
    assert cells[-1] == "4 of 40 in 1 layer"
