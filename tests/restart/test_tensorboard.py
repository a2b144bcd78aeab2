import copy
import re
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG

from kerasrestart import (
    EveryEpochs,
    EverySteps,
    PartialRestart,
    PlasticityMonitor,
    RestartBackup,
    RestartTensorBoard,
)
from kerasrestart.restart.filter_images import FRAME
from kerasrestart.restart.records import LayerRestart, RestartEvent
from kerasrestart.restart.restart_scalars import (
    recovery_scalars,
    restarted_scalars,
    score_scalars,
    step_restart_scalars,
)
from kerasrestart.restart.tensorboard import markdown_table

EPOCHS, ROUND = 6, 2
SETTINGS = {"learning_rate": 0.01, "init": "he", "pattern": "a|b_c_d"}
FILTERS = {"conv1": 6, "conv2": 8}
# 4 batches an epoch: with update_freq=3, the stock callback has recording off after most epochs.
IMAGES = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")
LABELS = IMAGES.mean((1, 2, 3))


def small_model():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3, activation="relu", name="conv1"),
            layers.Conv2D(8, (3, 2), activation="relu", name="conv2"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def fit(model, *callbacks, x=IMAGES, epochs=EPOCHS):
    settings = {"batch_size": 16, "shuffle": False, "verbose": 0}
    held_out = (x[:16], LABELS[:16])
    model.fit(
        x, LABELS, epochs=epochs, validation_data=held_out, callbacks=list(callbacks), **settings
    )


def restarts(*observers, **options):
    defaults = {"fraction": 0.3, "initializer": "he", "max_restarts": 2}
    return PartialRestart(
        **{**defaults, **options},
        when=EveryEpochs(ROUND),
        stop_on_repeat=False,
        observers=observers,
    )


def read(folder):
    """All records of a run: by tag, by step, the tensor."""
    records = EventAccumulator(str(folder), {"tensors": 0}).Reload()
    return {
        tag: [(event.step, tf.make_ndarray(event.tensor_proto)) for event in records.Tensors(tag)]
        for tag in records.Tags()["tensors"]
    }


def scalars(records):
    return {
        tag: {step: float(value) for step, value in points}
        for tag, points in records.items()
        if np.asarray(points[0][1]).dtype.kind == "f" and not np.ndim(points[0][1])
    }


class Witness(keras.callbacks.Callback):
    """Keeps the scores of each epoch."""

    def __init__(self, restart):
        super().__init__()
        self.restart, self.scores = restart, {}

    def on_epoch_end(self, epoch, logs=None):
        self.scores[epoch] = {name: of.copy() for name, of in self.restart.scores.items()}


@pytest.fixture(scope="module", params=["epoch", 3])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    board = RestartTensorBoard(folder / "run" / "restart", SETTINGS)
    restart = restarts(board)
    witness = Witness(restart)
    stock = {"update_freq": request.param, "write_graph": False}
    fit(small_model(), restart, witness, keras.callbacks.TensorBoard(folder / "run", **stock))
    fit(small_model(), keras.callbacks.TensorBoard(folder / "alone", **stock))
    records = read(folder / "run" / "restart")
    return types.SimpleNamespace(folder=folder, restart=restart, witness=witness, records=records)


def test_each_selection_is_written_at_the_epoch_of_its_restart(run):
    events, found = run.restart.events, scalars(run.records)
    assert [event.epoch for event in events] == [1, 3]
    again = sum(layer.reselected for layer in events[1].layers.values())
    assert found["restart/reselected"] == {3: again}
    for name, filters in FILTERS.items():
        taken = {event.epoch: event.layers[name] for event in events}
        assert found[f"restart/filters/{name}"] == {1: 2, 3: 2}
        assert found[f"restart/share/{name}"] == pytest.approx({1: 2 / filters, 3: 2 / filters})
        assert found[f"restart/reselected/{name}"] == {3: taken[3].reselected}
        for kind, of in (("min", np.min), ("median", np.median), ("max", np.max)):
            expected = {epoch: of(layer.scores) for epoch, layer in taken.items()}
            assert found[f"restart_scores/{name}/{kind}"] == pytest.approx(expected, rel=1e-6)


def test_restarts_are_marked_at_the_value_of_the_metric(run):
    first, second = (e.metrics_before["val_loss"] for e in run.restart.events)
    points = [(step, float(value)) for step, value in run.records["restart/metric_before"]]
    assert [step for step, _ in points] == [
        1,
        2,
        3,
        3,
        4,
        5,
    ]  # 3: the end of one line, and the next
    assert [value for _, value in points] == pytest.approx([first] * 3 + [second] * 3)


def test_drop_and_recovery_are_written_at_the_epochs_that_show_them(run):
    events, found = run.restart.events, scalars(run.records)
    assert found["restart/metric_drop"] == pytest.approx(
        {2: events[0].metric_drop, 4: events[1].metric_drop}
    )
    recovered = {e.epoch + e.epochs_to_recover: e for e in events if e.epochs_to_recover}
    assert recovered
    assert found["restart/epochs_to_recover"] == {
        epoch: event.epochs_to_recover for epoch, event in recovered.items()
    }


def test_each_epoch_has_the_lowest_and_the_median_score_of_each_layer(run):
    found = scalars(run.records)
    for name in FILTERS:
        of = {epoch: scores[name] for epoch, scores in run.witness.scores.items()}
        assert list(of) == list(range(EPOCHS))
        least = {epoch: s.min() / s.mean() for epoch, s in of.items()}
        median = {epoch: np.median(s) / s.mean() for epoch, s in of.items()}
        assert found[f"scores_relative/{name}/min"] == pytest.approx(least, rel=1e-5)
        assert found[f"scores_relative/{name}/median"] == pytest.approx(median, rel=1e-5)


def test_histograms_hold_all_scores_over_their_mean_at_the_end_of_each_round(run):
    for name, filters in FILTERS.items():
        points = run.records[f"scores_relative/{name}"]
        assert [step for step, _ in points] == [1, 3, 5]
        for step, buckets in points:  # rows of left edge, right edge, count
            scores = run.witness.scores[step][name]
            scores = scores / scores.mean()
            assert buckets[:, 2].sum() == filters
            assert buckets[0, 0] == pytest.approx(scores.min())
            assert buckets[-1, 1] == pytest.approx(scores.max())


def test_nothing_else_is_written(run):
    groups = {tag.split("/")[0] for tag in run.records}
    assert groups == {
        "settings",
        "restart",
        "restart_scores",
        "scores_relative",
        "restarted_scores",
        "filters",
        CONFIG_SUMMARY_TAG,
    }
    assert len(run.records) == 1 + 2 + 2 + 2 + 2 * (3 + 3 + 1 + 2 + 1) + 3


def test_restarted_filters_are_compared_with_the_others(run):
    first, second = run.restart.events
    for name in FILTERS:
        of = {}
        for epoch, scores in run.witness.scores.items():
            event = first if first.epoch < epoch <= second.epoch else second
            if epoch > first.epoch:
                taken = event.layers[name].filters
                rest = [k for k in range(FILTERS[name]) if k not in taken]
                of[epoch] = np.median(scores[name][taken]) / np.median(scores[name][rest])
        assert scalars(run.records)[f"restarted_scores/{name}"] == pytest.approx(of, rel=1e-5)


def test_each_chart_of_the_story_has_one_unit_and_shows_tags_that_are_written(run):
    [(_, layout)] = run.records[CONFIG_SUMMARY_TAG]
    restarts, scores, restarted = layout_pb2.Layout.FromString(layout.item()).category
    assert len(restarts.chart) == 4
    by_layer = [*scores.chart, *restarted.chart]
    assert [chart.title.split(":")[0] for chart in by_layer] == 2 * list(FILTERS)
    written = [*run.records, *read(run.folder / "run" / "validation")]
    shown = {}
    for chart in (*restarts.chart, *by_layer):
        for tag in chart.multiline.tag:
            shown.setdefault(chart.title, []).extend(n for n in written if re.search(tag, n))
            assert shown[chart.title], tag
    alone = [tags for tags in shown.values() if len(tags) == 1]
    assert sorted(alone) == [
        ["restart/epochs_to_recover"], ["restart/metric_drop"], ["restart/reselected"],
        *([f"restarted_scores/{name}"] for name in FILTERS),
    ]  # fmt: skip
    assert ["epoch_loss", "restart/metric_before"] in shown.values()


def test_the_control_says_nothing_of_restarted_filters(tmp_path):
    restart = restarts(RestartTensorBoard(tmp_path), control="none")
    fit(small_model(), restart)
    records = read(tmp_path)
    assert len(restart.events) == 2
    assert restart.events[0].layers
    assert not [tag for tag in records if tag.startswith(("filters/", "restarted_scores/"))]
    assert not [tag for tag in records if tag.startswith(("restart/filters/", "restart/share/"))]
    assert {"restart/reselected", "restart/metric_drop", "restart/metric_before"} <= set(records)
    [(_, layout)] = records[CONFIG_SUMMARY_TAG]
    categories = layout_pb2.Layout.FromString(layout.item()).category
    assert not [c.title for c in categories if "restarted filters" in c.title]


def test_a_picture_is_drawn_when_the_metric_has_recovered(run):
    recovered = [e.epoch + e.epochs_to_recover for e in run.restart.events if e.epochs_to_recover]
    assert [step for step, _ in run.records["filters/conv1/3_recovered"]] == recovered


def test_a_folder_that_cannot_be_written_to_is_refused_before_any_epoch(tmp_path):
    path = tmp_path / "file"
    path.touch()
    model, epochs = small_model(), []
    seen = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
    monitor = PlasticityMonitor(IMAGES, LABELS, log_dir=path / "run")
    for callback in (restarts(RestartTensorBoard(path / "run")), monitor):
        with pytest.raises(ValueError, match=r"^log_dir must be a folder .*/run.* not a") as error:
            fit(model, seen, callback)
        assert "\n" not in str(error.value)
        assert "Op:" not in str(error.value)
    with pytest.raises(ValueError, match=r"^path must be that of a file .*/run.*Not a directory"):
        fit(model, seen, restarts(RestartBackup(path / "run" / "backup.json")))
    assert not epochs


def test_the_address_of_a_folder_stays_as_it_is():
    assert RestartTensorBoard("gs://bucket/logs").log_dir == "gs://bucket/logs"


def test_counts_and_ratios_are_of_their_epoch_and_of_scores_that_are_not_zero():
    def event(step):
        layers = {"conv": LayerRestart([0, 1], [0.0, 0.0], of=6)}
        return RestartEvent(1, 0, "", "he", None, layers, {}, step=step)

    events = [event(5), event(9), event(13)]  # one fit of two epochs, and one that continues it
    assert step_restart_scalars(events, 0, last=events[1]) == {"restart/filters/conv": 2}
    assert step_restart_scalars(events, 0) == {"restart/filters/conv": 6}
    scores = {"conv": np.array([0.5, 0.3, 0.0, 0.0, 0.0, 0.7])}
    assert not restarted_scalars(events, scores)
    scores["conv"][2:] = 0.2
    assert restarted_scalars(events, scores) == {"restarted_scores/conv": 2.0}


def test_of_restarts_between_batches_counts_and_scores_are_written_at_each_epoch(tmp_path):
    restart = PartialRestart(
        fraction=0.3, when=EverySteps(1, maturity=0), observers=[RestartTensorBoard(tmp_path)]
    )
    fit(small_model(), restart, epochs=2)
    assert {event.epoch for event in restart.events} == {0, 1}
    records = read(tmp_path)
    tags = {f"{tag}/{name}" for name in FILTERS for tag in ("restart/filters", "restarted_scores")}
    tags |= {f"scores_relative/{name}/{of}" for name in FILTERS for of in ("min", "median")}
    steps = {tag: [step for step, _ in records.pop(tag)] for tag in tags}
    assert all(of_tag == [0, 1] for of_tag in steps.values())
    assert set(records) == {f"scores_relative/{name}" for name in FILTERS} | {CONFIG_SUMMARY_TAG}


class OnFullDisk(RestartTensorBoard):
    def on_train_begin(self, restart):
        super().on_train_begin(restart)
        self._writer.flush = self.fail

    def fail(self):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")


def test_a_writer_that_fails_warns_once_and_training_continues(tmp_path):
    restart = restarts(OnFullDisk(tmp_path), max_restarts=1)
    with pytest.warns(UserWarning, match="No more records .* No space left") as warned:
        fit(small_model(), restart, epochs=4)
    assert len([w for w in warned if "No more records" in str(w.message)]) == 1
    assert len(restart.events) == 1


def test_texts_hold_settings_and_restarts(run):
    [(step, table)] = run.records["settings"]
    assert step == 0
    assert table.item().decode().splitlines()[2:] == [
        "| `learning_rate` | `0.01` |",
        "| `init` | `he` |",
        "| `pattern` | `a|b_c_d` |",
    ]
    texts = [(step, text.item().decode()) for step, text in run.records["restart/summary"]]
    assert texts == [(event.epoch, event.summary()) for event in run.restart.events]


def test_tensorboard_shows_the_settings_as_they_are():
    shown = markdown_to_safe_html(markdown_table(SETTINGS | {"back": r"a\|b", "tag": "<b>"}))
    cells = re.findall("<td><code>(.*?)</code></td>", shown)
    expected = {**SETTINGS, "back": r"a\|b", "tag": "&lt;b&gt;"}
    assert cells == [str(cell) for row in expected.items() for cell in row]


def test_pictures_frame_the_restarted_filters_and_differ_in_them_alone(run):
    before, after = (run.records[f"filters/conv1/{when}"] for when in ("1_before", "2_after"))
    assert [step for step, _ in before] == [step for step, _ in after] == [1, 3]
    for event, (_, old), (_, new) in zip(run.restart.events, before, after, strict=True):
        old, new = tiles_of(old, 50), tiles_of(new, 50)
        restarted = event.layers["conv1"].filters
        for tiles in (old, new):
            assert [k for k in range(6) if (tiles[k, :2] == FRAME).all()] == restarted
        assert [k for k in range(6) if (old[k] != new[k]).any()] == restarted


def tiles_of(image, side):
    """The tiles of a picture of 6 filters, which has 4 columns and 2 rows of them."""
    width, height, png = image
    picture = tf.io.decode_png(png).numpy()
    assert picture.shape == (2 * side, 4 * side, 3)
    assert (int(width), int(height)) == (4 * side, 2 * side)
    return picture.reshape(2, side, 4, side, 3).swapaxes(1, 2).reshape(8, side, side, 3)[:6]


@pytest.mark.parametrize(
    ("first", "side", "one_number_each"),
    [
        # A filter of a separable convolution is a column of its 1 x 1 kernel: one number is drawn.
        (lambda: layers.SeparableConv2D(6, 3, name="first"), 40 + 8, True),
        (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, name="first"), 3 * 14 + 8, False),
        (lambda: layers.Conv2DTranspose(6, 3, name="first"), 3 * 14 + 8, False),
    ],
    ids=["separable", "depthwise", "transposed"],
)
def test_filters_are_drawn_for_any_layout_of_the_kernel(first, side, one_number_each, tmp_path):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), first(), layers.GlobalAveragePooling2D(), layers.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    restart = restarts(RestartTensorBoard(tmp_path), max_restarts=1)
    fit(model, restart, epochs=4)
    records = read(tmp_path)
    restarted = restart.events[0].layers["first"].filters
    assert len(restarted) == 2
    [(_, old)], [(_, new)] = (records[f"filters/first/{when}"] for when in ("1_before", "2_after"))
    old, new = tiles_of(old, side), tiles_of(new, side)
    for tiles in (old, new):
        assert [k for k in range(6) if (tiles[k, :2] == FRAME).all()] == restarted
    changed = [k for k in range(6) if (old[k] != new[k]).any()]
    assert set(changed) <= set(restarted) if one_number_each else changed == restarted


@pytest.mark.parametrize("part", ["train", "validation"])
def test_the_stock_callback_writes_what_it_writes_alone(run, part):
    beside, alone = read(run.folder / "run" / part), read(run.folder / "alone" / part)
    assert beside.keys() == alone.keys()
    assert any(tag.startswith("epoch_") for tag in alone)
    for tag, points in alone.items():
        assert [step for step, _ in beside[tag]] == [step for step, _ in points]


def test_a_writer_that_is_the_default_already_stays_so_and_gets_nothing(tmp_path):
    # Another test may have left a writer behind, where a fit of it was broken off.
    left_behind = bool(tf.summary.scalar("nowhere", 1.0, step=0))
    other = tf.summary.create_file_writer(str(tmp_path / "other"))
    with other.as_default(), tf.summary.record_if(False):
        fit(small_model(), restarts(RestartTensorBoard(tmp_path / "own"), max_restarts=0), epochs=2)
        with tf.summary.record_if(True):
            tf.summary.scalar("mine", 1.0, step=0)
    other.close()
    assert list(read(tmp_path / "other")) == ["mine"]
    assert "scores_relative/conv1" in read(tmp_path / "own")
    assert bool(tf.summary.scalar("nowhere", 1.0, step=0)) is left_behind


def test_each_fit_has_a_file_of_its_own_and_settings_are_optional(tmp_path):
    model, restart = small_model(), restarts(RestartTensorBoard(str(tmp_path)), max_restarts=0)
    for _ in range(2):
        fit(model, restart, epochs=1)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    for file in files:
        assert [step for step, _ in read(file)["scores_relative/conv1"]] == [0]
        assert "settings" not in read(file)


def test_another_layer_can_be_drawn(tmp_path):
    restart = restarts(RestartTensorBoard(tmp_path, image_layer="conv2"), max_restarts=1)
    fit(small_model(), restart, epochs=4)
    records = read(tmp_path)
    assert [tag for tag in records if tag.startswith("filters/")] == [
        "filters/conv2/1_before",
        "filters/conv2/2_after",
    ]
    [(_, (width, height, _))] = records["filters/conv2/2_after"]
    assert (int(width), int(height)) == (4 * (2 * 14 + 8), 2 * (3 * 14 + 8))


def test_a_layer_without_restarted_filters_is_not_drawn(tmp_path):
    # 0.07 of 8 filters is one, of 6 none.
    restart = restarts(RestartTensorBoard(tmp_path), fraction=0.07, max_restarts=1)
    fit(small_model(), restart, epochs=4)
    records = read(tmp_path)
    assert "restart/filters/conv2" in records
    assert not [tag for tag in records if tag.startswith(("filters/", "restart/filters/conv1"))]


def line_model():
    model = keras.Sequential(
        [
            keras.Input((64, 3)),
            layers.Conv1D(8, 3, activation="relu", name="line"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    return model


def test_filters_of_a_1d_convolution_have_scalars_and_no_picture(tmp_path):
    restart = restarts(RestartTensorBoard(tmp_path), max_restarts=1)
    fit(line_model(), restart, x=IMAGES.reshape(64, 64, 3), epochs=4)
    records = read(tmp_path)
    assert scalars(records)["restart/filters/line"] == {1: 2}
    assert not [tag for tag in records if tag.startswith("filters/")]


def test_an_unknown_image_layer_is_refused_by_name(tmp_path):
    restart = restarts(RestartTensorBoard(tmp_path, image_layer="conv9"))
    with pytest.raises(ValueError, match=r"image_layer .*\['conv1', 'conv2'\].* 'conv9'"):
        fit(small_model(), restart)


def event(epoch, metric_drop=None, epochs_to_recover=None):
    return RestartEvent(
        1,
        epoch,
        "",
        "he",
        None,
        {},
        {},
        metric_drop=metric_drop,
        epochs_to_recover=epochs_to_recover,
    )


def test_the_recovery_from_a_restart_is_written_when_the_next_follows_at_once():
    events = [event(3, metric_drop=0.5, epochs_to_recover=1), event(4)]
    assert recovery_scalars(events, 4) == {
        "restart/metric_drop": 0.5,
        "restart/epochs_to_recover": 1,
    }
    assert recovery_scalars(events, 3) == recovery_scalars(events, 5) == {}


def test_a_later_recovery_is_written_once():
    events = [event(3, metric_drop=0.5, epochs_to_recover=3)]
    written = [recovery_scalars(events, epoch) for epoch in range(3, 9)]
    assert written == [
        {},
        {"restart/metric_drop": 0.5},
        {},
        {"restart/epochs_to_recover": 3},
        {},
        {},
    ]


def test_relative_scores_of_a_layer_of_zeros_are_zero():
    scalars_of = score_scalars({"dead": np.zeros(4, np.float32), "alive": np.float32([0, 1, 3])})
    assert scalars_of == {
        "scores_relative/dead/min": 0.0,
        "scores_relative/dead/median": 0.0,
        "scores_relative/alive/min": 0.0,
        "scores_relative/alive/median": pytest.approx(0.75),
    }


def test_a_table_keeps_its_two_columns_whatever_the_values():
    rows = markdown_table({"none": None, "empty": "", "lines": "a\nb", "tick": "`"}).splitlines()
    assert rows == [
        "| setting | value |",
        "|---|---|",
        "| `none` | `None` |",
        "| `empty` |  |",
        "| `lines` | `a b` |",
        "| `tick` | `'` |",
    ]


def test_a_callback_can_be_copied_after_fit_with_its_observers(tmp_path):
    restart = restarts(RestartTensorBoard(tmp_path))
    fit(small_model(), restart)
    copied = copy.deepcopy(restart)
    assert copied.events == restart.events != []
    assert copied.observers[0].log_dir == str(tmp_path)


def test_one_observer_without_a_list_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="observers must be a list of RestartObservers"):
        PartialRestart(observers=RestartTensorBoard(tmp_path))
