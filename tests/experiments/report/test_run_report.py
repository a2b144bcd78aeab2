"""The report of one run, from the files in its folder."""

import html.parser
import http.server
import json
import shutil
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

from kerasrestart.experiments.records.score_log import ScoreLog, read_scores
from kerasrestart.experiments.report import run_figures
from kerasrestart.experiments.report.command import PROGRAM, main
from kerasrestart.experiments.report.drawing import to_bytes
from kerasrestart.experiments.report.html_page import to_html
from kerasrestart.experiments.report.run_report import write_run_report
from kerasrestart.experiments.report.run_summary import run_summary

SCORES = {"conv1": [1.0, 2.0, 0.5, 0.25], "conv2": [3.0, 1.0]}


def event(number, epoch, filters, initializer="uniform", reselected=None):
    return {
        "restart": number,
        "epoch": epoch,
        "reason": "val_loss has not improved for 2 epochs",
        "initializer": initializer,
        "learning_rate": 0.01,
        "layers": {
            "conv1": {"filters": filters, "scores": SCORES["conv1"], "reselected": reselected}
        },
        "metrics_before": {"val_accuracy": 0.5},
        "metrics_after": {"val_accuracy": 0.4},
        "metric_drop": 0.1,
        "epochs_to_recover": None,
    }


@pytest.fixture
def folder(tmp_path):
    row = {
        "round": "baseline", "data": "shapes", "epochs": 2, "best_epoch": 1,
        "validation_accuracy": 0.5, "test_accuracy": 0.4321, "test_accuracy_last": 0.41,
        "train_accuracy_last": 0.612, "restarted": {},
    }  # fmt: skip
    record = {
        "settings": {
            "model": "mininet",
            "init": "uniform",
            "layers": "a|b<c>",
            "tasks": "none",
            "monitor": "val_loss",
        },
        "versions": {"keras": "3.x"},
        "environment": {},
        "data": {"name": "shapes", "note": "numbers are NOT CIFAR-10's"},
        "weights": None,
        "rounds": [],
        "rollbacks": [],
        "timing": {"started": "", "seconds": 1.0, "folder": ""},
        "events": [event(1, 1, [2, 3]), event(2, 3, [0], "none")],
        "finished": "max_restarts=2 reached",
        "table": [row],
    }
    (tmp_path / "run.json").write_text(json.dumps(record))
    lines = [f"{n},{0.1 * n},0.01,{2 - 0.1 * n},{0.1 * n},{2 - 0.1 * n}" for n in range(6)]
    names = "epoch,accuracy,learning_rate,loss,val_accuracy,val_loss"
    (tmp_path / "history.csv").write_text("\n".join([names, *lines]) + "\n")
    log = ScoreLog(tmp_path / "scores.jsonl")
    for epoch in range(6):
        log.on_epoch_end(epoch, restart_with(epoch, {n: np.array(s) for n, s in SCORES.items()}))
    return tmp_path


def restart_with(epoch, scores, scored_epoch=None):
    state = types.SimpleNamespace(scored_epoch=epoch if scored_epoch is None else scored_epoch)
    return types.SimpleNamespace(scores=scores, state=state)


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.sources, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_the_report_is_one_file_with_all_that_the_records_hold(folder):
    path = write_run_report(folder)
    page = Page(path.read_text())
    assert len(page.sources) == 4
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    for text in (
        "NOT CIFAR-10", "best epoch is chosen by val_loss", "43.21", "max_restarts=2 reached",
        "a|b<c>", "3.x", "val_loss has not improved for 2 epochs", "2 of 4", "+0.1000",
    ):  # fmt: skip
        assert text in page.text, text
    before = path.read_bytes()
    assert write_run_report(folder).read_bytes() == before


def rewritten(folder, **changes):
    record = json.loads((folder / "run.json").read_text()) | changes
    (folder / "run.json").write_text(json.dumps(record))
    return record


def test_all_filters_of_a_dead_layer_are_useless(folder):
    dead = event(1, 1, [3])
    dead["layers"]["conv1"]["scores"] = [0.0] * 4
    rewritten(folder, events=[dead])
    text = " ".join(Page(write_run_report(folder).read_text()).text.split())
    assert "Before the first restart 4 filters of 4 scored at most 10% of the mean" in text


def test_the_report_begins_with_gain_useless_filters_reselection_and_the_control(folder):
    (row,) = json.loads((folder / "run.json").read_text())["table"]
    later = {**row, "round": "restart 1", "validation_accuracy": 0.5625, "restarted": {"conv1": 2}}
    rewritten(
        folder, table=[row, later], events=[event(1, 1, [3]), event(2, 3, [0, 3], reselected=1)]
    )
    (folder / "baseline").mkdir()
    text = " ".join(Page(write_run_report(folder).read_text()).text.split())
    head = text[: text.index("Rounds")]
    for sentence in (
        "Validation accuracy was 50.00 % in the baseline and 56.25 % after restart 1 (+6.25 ",
        "Before the first restart no filters of 4 scored at most 10% of the mean of its layer.",
        "Of 2 filters chosen after the first restart, 1 had been chosen by the restart before.",
        f"-m kerasrestart.main --flagfile={folder}/flags.txt --init=none --baseline={folder}",
    ):
        assert sentence in head, sentence


def test_useless_filters_are_counted_below_a_tenth_of_the_mean(folder):
    restart = event(1, 1, [0])
    restart["layers"]["conv1"]["scores"] = [0.0, 0.09, 0.11, 3.8]  # the mean is 1
    record = rewritten(folder, events=[restart])
    assert "Before the first restart 2 filters of 4" in run_summary(record, folder)[1]


def test_the_report_of_a_control_says_so_and_names_no_other_command(folder):
    record = json.loads((folder / "run.json").read_text())
    rewritten(folder, settings=record["settings"] | {"init": "none"})
    text = Page(write_run_report(folder).read_text()).text
    assert "This run is a control" in text
    assert "kerasrestart.main" not in text


HOSTILE = "![x](http://a.invalid/x.png) <img src=//b.invalid> [y](//c.invalid) | *z* &lt; \n# h"


def test_markup_in_a_foreign_record_is_text_and_loads_nothing(folder):
    restart = event(1, 1, [2])
    restart["layers"][HOSTILE] = restart["layers"]["conv1"]
    restart |= {"reason": HOSTILE, "initializer": HOSTILE}
    record = json.loads((folder / "run.json").read_text())
    rewritten(
        folder,
        settings=record["settings"] | {"model": HOSTILE, HOSTILE: HOSTILE, "monitor": HOSTILE},
        versions={HOSTILE: HOSTILE},
        data={"name": HOSTILE, "note": HOSTILE},
        table=[record["table"][0] | {"round": HOSTILE}],
        finished=HOSTILE,
        events=[restart],
    )
    text = write_run_report(folder).read_text()
    page = Page(text)
    assert len(page.sources) == 4
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    assert page.text.count("http://a.invalid/x.png") >= 10
    assert "<img src=//b" not in text
    assert "<em>" not in text
    assert page.text.count("&lt;") >= 10
    assert text.count("<h1>") == 1
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in text


def test_images_and_links_in_any_text_of_a_page_are_text():
    text = (
        "# a\n\n![x](http://a.invalid/x.png) ![y](y.svg) [z](http://c.invalid) <http://d.invalid>"
    )
    page = Page(to_html(text + "\n\n[r]: http://e.invalid", "t", {"y.svg": b"<svg/>"}))
    assert page.sources == ["data:image/svg+xml;base64,PHN2Zy8+"]


def test_a_run_that_has_not_ended_is_reported(folder):
    rewritten(folder, finished=None, events=[])
    (folder / "scores.jsonl").unlink()
    (folder / "history.csv").write_text("epoch,accuracy\n0,0.5\n1,")
    page = Page(write_run_report(folder).read_text())
    assert "not ended yet" in page.text
    assert len(page.sources) == 1


def test_figures_mark_the_restarts_where_they_were(folder):
    record = json.loads((folder / "run.json").read_text())
    epochs, scores = read_scores(folder / "scores.jsonl")
    np.testing.assert_array_equal(scores["conv1"], [SCORES["conv1"]] * 6)
    curves = run_figures.RunCurves({"epoch": [0.0]}, record["events"], epochs, scores)
    drawn = run_figures.draw_run(curves)
    marks = drawn["filters"].axes[0].lines
    assert [(list(m.get_xdata()), list(m.get_ydata())) for m in marks] == [
        ([2.5, 2.5], [2, 3]),
        ([4.5], [0]),
    ]
    image = drawn["useless"].axes[0].images[0].get_array()
    mean = sum(SCORES["conv1"]) / 4
    np.testing.assert_allclose(image[0], [0.25 / mean] * 6)
    # Of restart 1 the filters 2 and 3, over the median of 1 and 2, in the two epochs after it.
    median = drawn["recovery"].axes[0].lines[2]
    np.testing.assert_allclose(median.get_ydata(), [0.375 / 1.5] * 2)


@pytest.mark.filterwarnings("error")
def test_a_restart_of_some_layers_has_a_layout(folder):
    record = json.loads((folder / "run.json").read_text())
    scores = {name: np.ones((6, 4)) for name in ("a", "b", "c", "conv1")}
    curves = run_figures.RunCurves({"epoch": [0.0]}, record["events"], np.arange(6), scores)
    for figure in run_figures.draw_run(curves).values():
        to_bytes(figure, "png")  # warns where there is no layout


def test_every_layer_is_drawn_or_named(folder):
    scores = {f"conv{n}": np.ones((2, 3)) for n in range(62)}
    few = dict(list(scores.items())[:19])
    for of, drawn, missing in ((few, 19, []), (scores, 60, ["conv60", "conv61"])):
        curves = run_figures.RunCurves({}, [], np.arange(2), of)
        with_image = [a for a in run_figures._filters(curves).axes if a.get_title()]
        assert [axes.get_title() for axes in with_image] == list(of)[:drawn]
        assert run_figures.layers_not_drawn(curves) == missing


def test_the_learning_rate_is_drawn_as_steps(folder):
    history = {"epoch": [0.0, 1.0], "learning_rate": [0.1, 0.01]}
    figure = run_figures.draw_run(run_figures.RunCurves(history, [], np.array([]), {}))["curves"]
    (rate,) = figure.axes[2].lines
    assert rate.get_drawstyle() == "steps-mid"


def test_an_epoch_that_was_not_scored_has_an_empty_column(folder):
    record = json.loads((folder / "run.json").read_text())
    epochs = np.array([1, 3, 4])
    scores = {"conv1": np.array([[1.0, 3.0], [1.0, 1.0], [0.0, 2.0]])}
    drawn = run_figures.draw_run(
        run_figures.RunCurves({"epoch": [0.0]}, record["events"], epochs, scores)
    )
    # Columns are epochs 2 to 5, counted from 1; 3 was not scored.
    for name, expected in {
        "useless": [[0.5, np.nan, 1.0, 0.0]],
        "filters": [[0.5, np.nan, 1.0, 0.0], [1.5, np.nan, 1.0, 2.0]],
    }.items():
        image = drawn[name].axes[0].images[0]
        np.testing.assert_array_equal(image.get_array().filled(np.nan), expected)
        left, right, _, _ = image.get_extent()
        assert (left, right) == (1.5, 5.5)


def test_a_layer_that_was_not_scored_is_empty_and_a_dead_one_is_zero():
    scores = {"conv1": np.array([[0.0, 0.0], [np.nan, np.nan]]), "conv2": np.ones((2, 2))}
    drawn = run_figures.draw_run(run_figures.RunCurves({}, [], np.array([0, 1]), scores))
    for name in ("useless", "filters"):
        image = drawn[name].axes[0].images[0].get_array().filled(np.nan)
        np.testing.assert_array_equal(image[0], [0, np.nan])


def test_an_epoch_that_was_not_scored_has_no_line_and_a_cut_line_is_left_out(tmp_path):
    log = ScoreLog(tmp_path / "scores.jsonl")
    log.on_epoch_end(0, restart_with(0, {"conv": np.array([0.123456789])}))
    log.on_epoch_end(1, restart_with(1, {"conv": np.array([1.0])}, scored_epoch=0))
    with log.path.open("a") as file:
        file.write('{"epoch": 2, "sco')
    epochs, scores = read_scores(log.path)
    assert epochs.tolist() == [0]
    assert scores["conv"].tolist() == [[0.123457]]
    assert read_scores(tmp_path / "missing")[1] == {}


@pytest.mark.parametrize(
    "text",
    [None, "{", "[]", "{}", "[" * 10**5],
    ids=["missing", "cut", "list", "empty", "deep"],
)
def test_a_folder_without_a_record_is_refused_in_one_line(tmp_path, capsys, monkeypatch, text):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        PROGRAM.start(main)
    assert ended.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert str(tmp_path) in message
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "report.html").exists()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
def test_a_browser_requests_nothing_for_a_hostile_record(folder, tmp_path_factory):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        image = f"![x]({url}/markdown.png) <img src='{url}/html.png'>"
        record = json.loads((folder / "run.json").read_text())
        rewritten(folder, data=record["data"] | {"note": image}, finished=image)
        page = write_run_report(folder).read_bytes()
        # What the escapes miss, the policy in the page stops.
        page = page.replace(b"</body>", f"<img src='{url}/policy.png'></body>".encode())
        for name in ("report.html", "control.html"):
            if name == "control.html":
                page = page.replace(b"Content-Security-Policy", b"Nothing")
            subprocess.run(
                [
                    *("chromium", "--headless=new", "--no-sandbox", "--disable-gpu"),
                    f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
                    *("--virtual-time-budget=2000", "--dump-dom", f"{url}/{name}"),
                ],
                check=True,
                capture_output=True,
                timeout=60,
            )
        server.shutdown()
    asked = [path for path in asked if path != "/favicon.ico"]
    assert asked == ["/report.html", "/control.html", "/policy.png"]


def test_a_record_without_a_setting_that_the_report_needs_is_refused(folder):
    rewritten(folder, settings={})
    with pytest.raises(ValueError, match=r"run\.json is not a valid run record: KeyError 'model'"):
        write_run_report(folder)


def test_a_damaged_history_is_named_and_not_the_record(folder):
    (folder / "history.csv").write_bytes(b"epoch,loss\n0,\xff\n")
    with pytest.raises(ValueError, match=r"history\.csv") as error:
        write_run_report(folder)
    assert "run.json" not in str(error.value)
