"""The report of a study: its content, its files, and that equal runs give equal bytes."""

import base64
import csv
import html.parser
import io
import json
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from synthetic_study import realistic, result

from kerasrestart.experiments.report import drawing
from kerasrestart.experiments.study import collect as collecting
from kerasrestart.experiments.study import figures
from kerasrestart.experiments.study.comparison import compare
from kerasrestart.experiments.study.hparams import write_hparams
from kerasrestart.experiments.study.plan import make_plan
from kerasrestart.experiments.study.published import PUBLISHED
from kerasrestart.experiments.study.report import ReportSettings, write_report
from kerasrestart.experiments.study.tuning import Trial, Tuning
from tests.experiments.report.hparams_sessions import sessions

RUNS = realistic(["mininet"], ["none", "uniform", "he"], range(3), epochs=5)


def report(folder, results=RUNS, **more):
    missing = more.pop("missing", {"mininet-clone-s0": "out of memory | <b>killed</b>"})
    command = "python -m kerasrestart.study --study_name='a b'"
    settings = {"title": "Which init & why", "command": command, **more}
    return write_report(results, ReportSettings(folder, **settings), missing)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return report(folder)


@pytest.fixture
def no_figures(monkeypatch):
    """They take most of the time."""
    monkeypatch.setattr(figures, "draw", lambda groups: {})


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_report_begins_with_verdicts_and_says_how_to_repeat_the_study(made):
    text = made.read_text()
    order = ["# Which init & why", "## Verdicts", "## Tables", "## Figures", "## Settings"]
    order += ["## Data and versions", "## Command", "## Missing runs"]
    places = [text.index(head) for head in order]
    assert places == sorted(places)
    for arm in compare(RUNS)[0].arms[1:]:
        assert f"- {arm.sentence()}" in text
    assert "test accuracy at the best epoch after the baseline" in text
    assert re.search(r"\| `fraction` +\| `0\.1` +\|", text)
    assert re.search(r"\| mininet \| uniform \| `--init=uniform` +\| 0 1 2 +\|", text)
    assert "`b182ae9bdf6507de`" in text
    assert re.search(r"\| kerasrestart \| 0\.1\.0 +\|", text)
    assert "python -m kerasrestart.study --study_name='a b'" in text
    assert "`mininet-clone-s0`" in text
    assert "2020-01-01" not in text  # no times
    assert "/elsewhere" not in text


def test_the_same_results_give_the_same_bytes_in_another_process(made, tmp_path):
    script = (
        "import sys, pathlib; sys.path[:0] = sys.argv[1:3]; import test_study_report as t; "
        "t.report(pathlib.Path(sys.argv[3])); "
        "t.write_hparams(pathlib.Path(sys.argv[3]) / 'hparams', t.RUNS)"
    )
    here = pathlib.Path(__file__).parent
    subprocess.run(
        [sys.executable, "-c", script, str(here), str(here.parents[2]), str(tmp_path)], check=True
    )
    write_hparams(made.parent / "hparams", RUNS)
    again, before = files(tmp_path), files(made.parent)
    assert list(again) == list(before)
    assert [name for name in again if again[name] != before[name]] == []


def test_files_of_an_earlier_report_are_removed_and_no_others(tmp_path, monkeypatch):
    drawn = ["differences", "arms-gone", "arms-folder"]
    monkeypatch.setattr(figures, "draw", lambda groups: {name: Figure() for name in drawn})
    report(tmp_path)
    assert "figures/arms-gone.png" in files(tmp_path)
    foreign = {"figures/arms-mine.svg", "tables/mine.csv", "tables/notes/mine.txt"}
    foreign.add("figures/arms-folder.svg/mine.txt")
    (tmp_path / "figures/arms-folder.svg").unlink()
    for name in foreign:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    drawn[1:] = []
    report(tmp_path)
    again = files(tmp_path)
    assert not [name for name in again if "gone" in name]
    assert {name for name, content in again.items() if content == b"mine"} == foreign
    assert "tables/differences.csv" in again
    report(tmp_path)
    assert files(tmp_path) == again


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.images, self.links, self.cells, self.text = [], [], 0, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.links += [attributes[name] for name in ("href", "src") if name in attributes]
        if tag == "img":
            self.images.append(attributes)
        self.cells += tag == "td"

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_needs_no_other_file_and_shows_every_figure(made):
    text = made.with_suffix(".html").read_text()
    page = Page(text)
    names = [image["alt"] for image in page.images]
    assert names == ["baselines", "arms-mininet", "restarts-mininet", "differences"]
    head = "data:image/svg+xml;base64,"
    assert page.links == [image["src"] for image in page.images]
    for image in page.images:
        assert image["src"].startswith(head)
        svg = base64.b64decode(image["src"].removeprefix(head))
        assert svg == (made.parent / "figures" / f"{image['alt']}.svg").read_bytes()
        assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "@import" not in text
    assert "url(" not in text


def test_the_page_shows_tables_as_tables_and_markup_in_reasons_as_text(made):
    text = made.with_suffix(".html").read_text()
    page = Page(text)
    rows = sum(line.startswith("|") for line in made.read_text().splitlines())
    assert text.count("<tr>") == rows - text.count("<table>")  # each has a rule
    assert "out of memory | <b>killed</b>" in page.text
    assert "<b>killed" not in text
    assert "Which init &amp; why" in text


def test_a_note_on_the_data_and_mixed_data_are_reported(tmp_path, no_figures):
    runs = [
        result(arm, 0, (0.1, 0.2), data={"note": "These are NOT CIFAR-10.", "sha256": sha})
        for arm, sha in (("none", "abc"), ("he", "def"))
    ]
    text = report(tmp_path, runs).read_text()
    assert "**These are NOT CIFAR-10.**" in text[: text.index("## Verdicts")]
    assert "The runs did not all use the same images." in text


def test_with_random_labels_no_selection_and_no_test_accuracy_is_reported(tmp_path, no_figures):
    regime = {"tasks": "random_labels", "monitor": "accuracy"}
    runs = [result(arm, 0, (0.1, 0.1), train=(0.9, 0.8), **regime) for arm in ("none", "he")]
    assert "test accuracy" not in report(tmp_path, runs).read_text()


def test_values_found_by_tuning_are_shown_with_all_trials(tmp_path, no_figures):
    trials = [
        Trial("mininet", arm, f"learning_rate={rate}", {}, {8: score, 9: score}, rate == best)
        for arm, best in (("none", 0.01), ("he", 0.1))
        for rate, score in ((0.1, 0.5), (0.01, 0.25))
    ]
    path = report(tmp_path, tuning=Tuning(tuple(trials), (8, 9), "validation accuracy"))
    text = path.read_text()
    assert text.index("## Tables") < text.index("## Tuning") < text.index("## Settings")
    assert "(8, 9)" in text
    assert re.search(r"\| he +\| +\*\*50\.00\*\* +\| +25\.00 +\|", text)
    rows = (tmp_path / "tables" / "tuning.csv").read_text().splitlines()
    assert rows[2] == "mininet,none,learning_rate=0.01,2,25.0,True"


def test_unequal_budgets_are_reported_first(tmp_path):
    runs = [result("none", 0, (0.1, 0.2)), result("he", 0, (0.1,))]
    text = report(tmp_path, runs).read_text()
    warning = (
        "**The budgets are not equal**: 2 epochs with 0 restarts (he); 4 epochs with 1 restarts"
    )
    assert text.index(warning) < text.index("**he**")


def test_a_study_of_the_control_alone_is_reported(tmp_path, no_figures):
    text = report(tmp_path, [result("none", 0, (0.1, 0.2))], missing={}).read_text()
    assert "No arm except the control has finished." in text
    assert "Missing runs" not in text


def test_without_the_control_there_is_no_comparison(tmp_path, no_figures):
    text = report(tmp_path, [result("he", 0, (0.1, 0.2))]).read_text()
    assert "No run of the control has finished" in text


def test_figures_show_the_means_and_mark_the_restarts():
    group = compare([result("none", s, (0.6, 0.7, 0.8 + 0.1 * s)) for s in (0, 1)])[0]
    figure = figures.arms_by_epoch(group)
    upper = figure.axes[0]
    curves = {line.get_label(): line.get_ydata() for line in upper.lines}
    after = curves["none (n = 2)"]
    assert after[~(after != after)] == pytest.approx([69, 70, 84, 85])
    assert curves["baseline"] == pytest.approx([59, 60])
    marks = [line.get_xdata()[0] for line in upper.lines if len(line.get_xdata()) == 2]
    assert {2.5, 4.5} <= set(marks)
    assert "lowest to highest" in upper.get_legend().get_title().get_text()


def test_bands_stay_between_0_and_100_percent():
    group = compare([result("none", s, (0.02, 0.99 + 0.005 * s)) for s in range(3)])[0]
    wide = [result("he", s, (0.0, (0.4, 1.0, 1.0)[s])) for s in range(3)]
    for figure in (figures.arms_by_epoch(compare(wide)[0]), figures.arms_by_restart(group)):
        for band in figure.axes[0].collections:
            heights = band.get_paths()[0].vertices[:, 1]
            assert heights.min() >= 0
            assert heights.max() <= 100


def test_the_report_says_what_the_curves_and_what_the_verdicts_measure(made):
    says = "Curves show validation accuracy; verdicts and differences use test accuracy at the best"
    assert says in made.read_text()


def test_each_figure_is_also_a_small_png(made):
    stems = {path.stem for path in (made.parent / "figures").glob("*.svg")}
    pictures = list((made.parent / "figures").glob("*.png"))
    assert {path.stem for path in pictures} == stems
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    assert all(path.stat().st_size < 100_000 for path in pictures)


def test_colours_of_a_png_are_those_of_the_lines():
    figure = Figure(figsize=(4, 3))
    axes = figure.subplots()
    for number, color in enumerate(drawing.COLORS):
        axes.plot([0, 1], [number, number], color=color, linewidth=3)
        axes.fill_between([0, 1], number, number + 0.8, color=color, alpha=0.13)
    pixels = matplotlib.image.imread(io.BytesIO(drawing.to_bytes(figure, "png")))[..., :3]
    for color in drawing.COLORS:
        distance = np.abs(pixels - matplotlib.colors.to_rgb(color)).max(-1)
        assert (distance < 0.02).sum() > 200, color


def test_without_curves_or_without_pairs_there_are_fewer_figures():
    runs = [result(arm, s, (0.1, 0.2 + 0.01 * s)) for arm in ("none", "he") for s in (0, 1)]
    for one in runs:
        one.history.clear()
    assert list(figures.draw(compare(runs))) == ["differences"]
    assert list(figures.draw(compare(runs[:2]))) == []  # the control alone


def test_tensorboard_lists_a_session_for_each_run_with_its_settings_and_outcomes(tmp_path):
    for _ in range(2):  # written again, they are no more
        write_hparams(tmp_path / "hparams", RUNS)
    found = sessions(tmp_path)
    assert set(found) == {one.cell.name for one in RUNS}
    for one in RUNS:
        values, metrics = found[one.cell.name]
        arm, seed = one.cell.arm, one.cell.seed
        assert values == {"network": "mininet", "arm": arm, "seed": seed, "init": arm}
        assert metrics == pytest.approx(
            {
                "outcome/chosen": 100 * one.chosen,
                "outcome/last": 100 * one.last,
                "outcome/validation": 100 * one.validation,
            },
            rel=1e-6,
        )
    write_hparams(tmp_path / "hparams", RUNS[:2])
    assert set(sessions(tmp_path)) == {one.cell.name for one in RUNS[:2]}


def test_collect_lists_missing_and_failed_runs_and_refuses_other_settings(
    tmp_path, no_figures, capsys
):
    jobs = make_plan({}, networks=["mininet"], arms=["he"], seeds=[0, 1, 2], logdir=str(tmp_path))
    for job in jobs:
        if job.cell and job.cell.seed == 0:
            one = result(job.cell.arm, 0, (0.1, 0.2), monitor=job.settings.monitor)
            one.record["settings"].update(job.settings.to_dict())
            _write_run(tmp_path / job.name, one)
    failed = {"mininet-he-s1": "out of memory"}
    settings = ReportSettings(tmp_path / "first", "A title", "python -m x")
    path = collecting.collect(jobs, tmp_path, failed, settings)
    assert path == tmp_path / "first" / "report.html"
    text = path.with_suffix(".md").read_text()
    printed = capsys.readouterr().out
    assert "mininet: test accuracy at the best epoch after the baseline, in percent" in printed
    assert "- he: no significant difference from the control with 1 seed: +0.00 points" in printed
    assert max(map(len, printed.splitlines()[:5])) <= 80
    assert text.startswith("# A title\n")
    assert re.search(r"`mininet-he-s1` +\| `out of memory`", text)
    assert re.search(r"`mininet-none-s2` +\| `not finished`", text)
    assert "baseline-s" not in text
    rows = list(csv.DictReader((tmp_path / "first" / "runs.csv").open()))
    assert [(row["arm"], row["seed"], row["folder"]) for row in rows] == [
        ("none", "0", "mininet-none-s0"),
        ("he", "0", "mininet-he-s0"),
    ]
    assert (float(rows[1]["outcome"]), rows[1]["epochs"], rows[1]["seconds"]) == (0.2, "4", "1.0")
    other = make_plan(
        {"batch_size": 64}, networks=["mininet"], arms=["he"], seeds=[0], logdir=str(tmp_path)
    )
    with pytest.raises(ValueError, match="--batch_size was 128, is 64"):
        collecting.collect(other, tmp_path, {}, settings)
    with pytest.raises(ValueError, match="has finished"):
        collecting.collect(jobs, tmp_path / "empty", {}, settings)


def _write_run(folder, one):
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(one.record))
    epochs = zip(*one.history.values(), strict=True)
    lines = [",".join(one.history), *(",".join(map(str, epoch)) for epoch in epochs)]
    (folder / "history.csv").write_text("\n".join(lines) + "\n")


def test_figures_and_captions_name_those_of_the_paper(tmp_path):
    more = {"round_epochs": 15, "image_size": None, "precision": "float32"}
    results = [result("none", 0, (0.7, 0.8), data={"image_shape": [32, 32, 3]}, **more)]
    path = report(tmp_path, results, published=PUBLISHED["han_zhang"])
    names = {file.stem for file in (tmp_path / "figures").iterdir()}
    assert names == {"figure_3-baselines", "figures_4_to_6-mininet", "figures_7_to_9-mininet"}
    text = path.read_text()
    assert "![figure_3-baselines](<figures/figure_3-baselines.svg>)" in text
    assert text.count("As in figures 4 to 6 of Han and Zhang.") == 1
    assert "training images 200 (50000 there), epochs per round 15 (40 there), float32." in text
