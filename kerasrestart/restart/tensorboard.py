"""What TensorBoard shows of restarts."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalar

from kerasrestart.network import kernels
from kerasrestart.restart.filter_images import draw_filters
from kerasrestart.restart.observer import RestartObserver

if TYPE_CHECKING:
    from kerasrestart.network.filter_layers import FilterLayer
    from kerasrestart.restart.callback import PartialRestart
    from kerasrestart.restart.records import RestartEvent, Round


class RestartTensorBoard(RestartObserver):
    """Writes for TensorBoard what restarts do to each layer and to the metric.

    Where the records cannot be written any more, as on a full disk, it warns once and writes none
    from then on; training goes on.

    It has a writer of its own, so it works beside `keras.callbacks.TensorBoard` whatever the
    `update_freq` of that. Steps are epochs counted from 0, as those of the other's `epoch_*`
    scalars, so that the curves of both line up. The tab "Custom scalars" has the story on one page:
    the metric, what each restart cost, which layers hold useless filters, and whether those that
    were restarted became useful.

    | tag | kind | step |
    |---|---|---|
    | `settings` | text: a table | 0 |
    | `scores_relative/<layer>/min`, `.../median` | scalar: the lowest and the median score, divided
      by the mean over the layer; 0 where all scores are | each epoch |
    | `scores/<layer>` | histogram of the scores | the last epoch of each round |
    | `restart/summary` | text: what was done, and why | epoch of a restart |
    | `restart/filters/<layer>` | scalar: number of filters selected | epoch of a restart |
    | `restart/share/<layer>` | scalar: their share of the layer | epoch of a restart |
    | `restart/useless_again/<layer>` | scalar: how many of them the restart before had selected,
      too | epoch of a restart, from the second on |
    | `restart_scores/<layer>/min`, `.../median`, `.../max` | scalar | epoch of a restart |
    | `restarted_scores/<layer>` | scalar: median score of the filters that the last restart took
      over that of the others; 1: as useful as they | each epoch after a restart |
    | `filters/<layer>/1_before`, `.../2_after` | image: `draw_filters` | epoch of a restart |
    | `filters/<layer>/3_recovered` | the same, when the metric is as good as before | that epoch |
    | `restart/metric_drop` | scalar: as in `RestartEvent` | the epoch after a restart |
    | `restart/epochs_to_recover` | scalar: as in `RestartEvent` | the epoch that has recovered |

    Args:
        log_dir: Folder to write to. Where the other callback writes to `logs/run`,
            `logs/run/restart` shows as a run beside its `train` and `validation`.
        settings: What the run was made with, by name, to be shown as a table. Defaults to None: no
            table.
        image_layer: Name of the layer whose filters are drawn, where a restart selects any of them.
            Of a separable convolution that is the pointwise kernel. Defaults to None: the first
            layer that is scored, if that is a 2D convolution.

    Raises:
        ValueError: At the start of `fit`: `image_layer` is not a scored 2D convolution.

    Example:
    ```python
    board = kerasrestart.RestartTensorBoard("logs/run/restart", settings={"learning_rate": 0.01})
    restart = kerasrestart.PartialRestart(observers=[board])
    stock = keras.callbacks.TensorBoard("logs/run")
    model.fit(x, y, validation_split=0.1, callbacks=[restart, stock])
    ```
    """

    def __init__(
        self,
        log_dir: str | os.PathLike,
        settings: Mapping[str, Any] | None = None,
        image_layer: str | None = None,
    ):
        self.log_dir = os.fspath(log_dir)
        self.settings = dict(settings or {})
        self.image_layer = image_layer
        self._writer: tf.summary.SummaryWriter | None = None
        self._broken = False

    def on_train_begin(self, restart: PartialRestart) -> None:
        """Opens the file, and shows the settings at once."""
        _pictured_site(self.image_layer, restart.scorer.layers)
        self._broken = False
        self._writer = tf.summary.create_file_writer(self.log_dir)
        with self._recording():
            layout = custom_scalar.pb(story_layout(restart.monitor)).SerializeToString()
            tf.summary.experimental.write_raw_pb(layout, step=0)
            if self.settings:
                tf.summary.text("settings", markdown_table(self.settings), step=0)

    def on_epoch_end(self, epoch: int, restart: PartialRestart) -> None:
        """Writes how unequal the filters of each layer are, and what became of the metric."""
        with self._recording():
            if restart.state.scored_epoch == epoch:
                _write_scalars(score_scalars(restart.scores), epoch)
                _write_scalars(restarted_scalars(restart.events, restart.scores), epoch)
            recovery = recovery_scalars(restart.events, epoch)
            _write_scalars(recovery, epoch)
            if "restart/epochs_to_recover" in recovery:
                self._write_image("3_recovered", restart.events[-1], restart, epoch)

    def on_round_end(self, ended: Round, restart: PartialRestart) -> None:
        """Writes the scores of all filters."""
        last_epoch = ended.first_epoch + ended.epochs - 1
        if restart.state.scored_epoch != last_epoch:
            return  # with a score_window: these scores are of an earlier epoch
        with self._recording():
            for name, scores in restart.scores.items():
                tf.summary.histogram(f"scores/{name}", scores, last_epoch)

    def on_restart_begin(self, event: RestartEvent, restart: PartialRestart) -> None:
        """Writes which filters are restarted, and draws them as they were."""
        with self._recording():
            tf.summary.text("restart/summary", event.summary(), event.epoch)
            _write_scalars(restart_scalars(event), event.epoch)
            self._write_image("1_before", event, restart, event.epoch)

    def on_restart_end(self, event: RestartEvent, restart: PartialRestart) -> None:
        """Draws the filters as they are now."""
        with self._recording():
            self._write_image("2_after", event, restart, event.epoch)

    def on_train_end(self, restart: PartialRestart) -> None:
        """Closes the file; another `fit` begins another."""
        with contextlib.suppress(tf.errors.OpError):  # it has been told of
            self._writer.close()

    @contextlib.contextmanager
    def _recording(self) -> Iterator[None]:
        """Leads summaries to this writer."""
        if self._broken:
            yield  # summaries that no writer is the default for go nowhere
            return
        try:
            # With an integer update_freq the other callback leaves recording off between batches.
            with self._writer.as_default(), tf.summary.record_if(True):
                yield
            self._writer.flush()  # so that a run can be watched, and little is lost with a process
        except tf.errors.OpError as error:
            self._broken = True
            reason = error.message.splitlines()[0]
            warnings.warn(f"No more records of restarts in {self.log_dir}: {reason}", stacklevel=2)

    def _write_image(
        self, when: str, event: RestartEvent, restart: PartialRestart, epoch: int
    ) -> None:
        filter_layer = _pictured_site(self.image_layer, restart.scorer.layers)
        if filter_layer is not None and filter_layer.name in event.layers:
            kernel = kernels.by_filter(
                filter_layer.layer, kernels.incoming_kernel(filter_layer.layer).value
            )
            filters = np.moveaxis(np.asarray(kernel), filter_layer.filter_axis, 0)
            picture = draw_filters(filters, framed=event.layers[filter_layer.name].filters)
            tf.summary.image(f"filters/{filter_layer.name}/{when}", picture[np.newaxis], epoch)


def restart_scalars(event: RestartEvent) -> dict[str, float]:
    """What a restart selected of each layer, by tag."""
    scalars: dict[str, float] = {}
    for name, layer in event.layers.items():
        scalars[f"restart/filters/{name}"] = len(layer.filters)
        scalars[f"restart/share/{name}"] = len(layer.filters) / len(layer.scores)
        if layer.reselected is not None:
            scalars[f"restart/useless_again/{name}"] = layer.reselected
        scalars[f"restart_scores/{name}/min"] = min(layer.scores)
        scalars[f"restart_scores/{name}/median"] = float(np.median(layer.scores))
        scalars[f"restart_scores/{name}/max"] = max(layer.scores)
    return scalars


def recovery_scalars(events: Sequence[RestartEvent], epoch: int) -> dict[str, float]:
    """What `epoch` tells of the metric after a restart, by tag.

    All events are looked at: an epoch that tells of one restart may end in the next.
    """
    scalars = {}
    for event in events:
        if event.metric_drop is not None and epoch == event.epoch + 1:
            scalars["restart/metric_drop"] = event.metric_drop
        if event.epochs_to_recover is not None and epoch == event.epoch + event.epochs_to_recover:
            scalars["restart/epochs_to_recover"] = event.epochs_to_recover
    return scalars


def restarted_scalars(
    events: Sequence[RestartEvent], scores: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Median score of the filters that the last restart took over that of the others, by tag."""
    scalars = {}
    for name, layer in events[-1].layers.items() if events else ():
        if name in scores and len(layer.filters) < len(scores[name]):
            others = np.median(np.delete(scores[name], layer.filters))
            restarted = np.median(scores[name][layer.filters])
            scalars[f"restarted_scores/{name}"] = float(restarted / others) if others else 0.0
    return scalars


def story_layout(monitor: str) -> layout_pb2.Layout:
    """What the tab "Custom scalars" shows.

    Args:
        monitor: The monitored metric.
    """
    metric = re.escape(monitor.removeprefix("val_"))
    charts = {
        f"{monitor}: what became of it": [f"epoch_{metric}"],
        "What a restart cost, and epochs until that was made up for": [
            "restart/metric_drop",
            "restart/epochs_to_recover",
        ],
        "Useless filters: the lowest score of a layer over its mean": ["scores_relative/.*/min"],
        "Restarted filters: their score over the others'": ["restarted_scores/.*"],
        "How many of them were selected again": ["restart/useless_again/.*"],
    }
    content = layout_pb2.MultilineChartContent
    chart = [
        layout_pb2.Chart(title=title, multiline=content(tag=tags)) for title, tags in charts.items()
    ]
    return layout_pb2.Layout(category=[layout_pb2.Category(title="Restarts", chart=chart)])


def score_scalars(scores: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Lowest and median score of each layer over the layer's mean, by tag.

    Scores fall together as the loss does; only how they stand to each other tells useless filters.
    """
    scalars = {}
    for name, of_layer in scores.items():
        mean = of_layer.mean()
        for kind, score in (("min", of_layer.min()), ("median", np.median(of_layer))):
            scalars[f"scores_relative/{name}/{kind}"] = float(score / mean) if mean else 0.0
    return scalars


def markdown_table(settings: Mapping[str, Any]) -> str:
    """Settings as a table in Markdown, a row each."""
    # TensorBoard's Markdown shows the backslash that other kinds need before a pipe in code.
    rows = [[code(cell).replace("\\|", "|") for cell in row] for row in settings.items()]
    return plain_table(("setting", "value"), rows)


def _write_scalars(scalars: Mapping[str, float], step: int) -> None:
    for tag, value in scalars.items():
        tf.summary.scalar(tag, value, step)


def _pictured_site(
    image_layer: str | None, filter_layers: Mapping[str, FilterLayer]
) -> FilterLayer | None:
    """The layer to be drawn; None where none was asked for and the first cannot be."""
    flat = {
        name: filter_layer
        for name, filter_layer in filter_layers.items()
        if len(kernels.incoming_kernel(filter_layer.layer).shape) == 4
    }
    if image_layer is None:
        return flat.get(next(iter(filter_layers)))
    if image_layer not in flat:
        raise ValueError(
            f"image_layer must be a 2D convolution that is scored, one of {list(flat)}. "
            f"Received: {image_layer!r}"
        )
    return flat[image_layer]
