"""Records of restarts for TensorBoard."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalar

from kerasrestart.network import kernels
from kerasrestart.network.arguments import check, checked_path
from kerasrestart.restart.custom_scalars_layout import custom_scalars_layout
from kerasrestart.restart.filter_images import draw_filters
from kerasrestart.restart.observer import RestartObserver, Restarts
from kerasrestart.restart.restart_scalars import (
    level_scalars,
    recovery_scalars,
    restart_scalars,
    restarted_layers,
    restarted_scalars,
    score_scalars,
    step_restart_scalars,
)
from kerasrestart.restart.summary_writer import summary_writer
from kerasrestart.scoring.over_mean import over_mean

if TYPE_CHECKING:
    from kerasrestart.network.filter_layers import FilterLayer
    from kerasrestart.restart.records import RestartEvent, Round


class RestartTensorBoard(RestartObserver):
    """Writes for TensorBoard what restarts do to each layer and to the metric.

    Example:
    ```python
    board = kerasrestart.RestartTensorBoard("logs/run/restart", settings={"learning_rate": 0.01})
    restart = kerasrestart.PartialRestart(observers=[board])
    stock = keras.callbacks.TensorBoard("logs/run")
    model.fit(x, y, validation_split=0.1, callbacks=[restart, stock])
    ```

    It has a writer of its own, so it works beside `keras.callbacks.TensorBoard` with any
    `update_freq`. Steps are epochs counted from 0, as those of that callback's `epoch_*` scalars,
    so that the curves of both line up. The tab "Custom scalars" tells the story on one page: the
    metric, with a level line that begins at each restart, what each restart cost, and the scores of
    each layer. Open it at `http://localhost:6006/#custom_scalars&_smoothingWeight=0`: smoothing
    distorts these curves.

    Where records cannot be written, as on a full disk, it warns once and writes no more; training
    continues.

    | tag | kind | step |
    |---|---|---|
    | `settings` | text: a table | 0 |
    | `scores_relative/<layer>/min`, `.../median` | scalar: lowest and median score, divided by the
      mean over the layer; 0 where all scores are 0 | each epoch |
    | `scores_relative/<layer>` | histogram of the scores, divided by their mean | last epoch of a
      round |
    | `restart/summary` | text: what was done, and why | epoch of a restart |
    | `restart/metric_before` | scalar: the monitored metric before the last restart: a line that
      marks restarts in its chart | epoch of a restart, and each epoch after it |
    | `restart/metric_drop` | scalar: as in `RestartEvent` | the epoch after a restart |
    | `restart/epochs_to_recover` | scalar: as in `RestartEvent` | the epoch that has recovered |
    | `restart/reselected` | scalar: how many filters were selected that the restart before had
      selected too | epoch of a restart, from the second on |
    | `restart/reselected/<layer>` | the same, of one layer | the same |
    | `restart_scores/<layer>/min`, `.../median`, `.../max` | scalar | epoch of a restart |
    | `restart/filters/<layer>` | scalar: number of filters restarted | epoch of a restart |
    | `restart/share/<layer>` | scalar: their share of the layer | epoch of a restart |
    | `restarted_scores/<layer>` | scalar: median score of the filters restarted last, divided by
      that of the others; 1: as useful as the others; not written where that of the others is 0 |
      each epoch after a restart |
    | `filters/<layer>/1_before`, `.../2_after` | image: `draw_filters` | epoch of a restart |
    | `filters/<layer>/3_recovered` | the same, when the metric is as good as before | that epoch |

    The last five are not written for the control `"none"`, which restarts no filter.

    Of restarts between batches only two are written, at each epoch: `restart/filters/<layer>`,
    summed over the epoch, and `restarted_scores/<layer>`, of the filters restarted last. Settings
    and `scores_relative` are written as usual.

    Args:
        log_dir: Folder to write to. Where the stock callback writes to `logs/run`,
            `logs/run/restart` shows as a run beside its `train` and `validation`.
        settings: The settings of the run by name, shown as a table. Defaults to None: no table.
        image_layer: Name of the layer whose filters are drawn when a restart selects any of them.
            For a separable convolution that is the pointwise kernel. Defaults to None: the first
            scored layer, if that is a 2D convolution.

    Raises:
        ValueError: An argument is of another kind; at the start of `fit`: `image_layer` is not a
            scored 2D convolution, or nothing can be written to `log_dir`.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike,
        settings: Mapping[str, Any] | None = None,
        image_layer: str | None = None,
    ):
        checked_path("log_dir", log_dir, "that of a folder")
        self.log_dir = os.fspath(log_dir)  # not as a Path, which breaks the address of a bucket
        right = settings is None or isinstance(settings, Mapping)
        check("settings", settings, right, "None or a dict of settings by name")
        right = image_layer is None or isinstance(image_layer, str)
        check("image_layer", image_layer, right, "None or the name of a layer")
        self.settings = dict(settings or {})
        self.image_layer = image_layer
        self._writer: tf.summary.SummaryWriter | None = None
        self._broken = False
        self._has_layout = False
        self._last_event: RestartEvent | None = None  # before the epoch that runs

    def on_train_begin(self, restart: Restarts) -> None:
        """Opens the file, and writes the settings and the layout of the charts."""
        layout = self._layout(restart)
        self._broken = False
        self._writer = summary_writer(self.log_dir)
        with self._recording():
            self._write_layout(layout)
            if self.settings:
                tf.summary.text("settings", markdown_table(self.settings), step=0)

    def on_epoch_end(self, epoch: int, restart: Restarts) -> None:
        """Writes the spread of each layer's scores, and the recovery of the metric."""
        layout = None if self._has_layout else self._layout(restart)
        with self._recording():
            self._write_layout(layout)
            if restart.state.scored_epoch == epoch:
                _write_scalars(score_scalars(restart.scores), epoch)
                _write_scalars(restarted_scalars(restart.events, restart.scores), epoch)
            counts = step_restart_scalars(restart.events, epoch, self._last_event)
            _write_scalars(counts, epoch)
            _write_scalars(level_scalars(restart.events, restart.monitor), epoch)
            recovery = recovery_scalars(restart.events, epoch)
            _write_scalars(recovery, epoch)
            if "restart/epochs_to_recover" in recovery:
                self._write_image("3_recovered", restart.events[-1], restart, epoch)
        self._last_event = restart.events[-1] if restart.events else None

    def on_round_end(self, ended: Round, restart: Restarts) -> None:
        """Writes the distribution of each layer's scores."""
        last_epoch = ended.first_epoch + ended.epochs - 1
        if restart.state.scored_epoch != last_epoch:
            return  # with Scoring(window=): these scores are of an earlier epoch
        with self._recording():
            for name, scores in restart.scores.items():
                tf.summary.histogram(f"scores_relative/{name}", over_mean(scores), last_epoch)

    def on_restart_begin(self, event: RestartEvent, restart: Restarts) -> None:
        """Writes which filters are restarted, and draws them before it."""
        if event.step is not None:
            return  # those between batches are counted by epoch
        with self._recording():
            tf.summary.text("restart/summary", event.summary(), event.epoch)
            _write_scalars(restart_scalars(event, restart.monitor), event.epoch)
            self._write_image("1_before", event, restart, event.epoch)

    def on_restart_end(self, event: RestartEvent, restart: Restarts) -> None:
        """Draws the filters after the restart."""
        if event.step is not None:
            return
        with self._recording():
            self._write_image("2_after", event, restart, event.epoch)

    def on_train_end(self, restart: Restarts) -> None:
        """Closes the file; another `fit` opens another."""
        with contextlib.suppress(tf.errors.OpError):  # the warning has been given
            self._writer.close()
        self._writer = None  # it cannot be copied

    def _layout(self, restart: Restarts) -> layout_pb2.Layout | None:
        """The layout of the charts; None before the first batch of a model without known inputs."""
        self._has_layout = False
        if not hasattr(restart, "scorer"):
            return None
        _drawn_layer(self.image_layer, restart.scorer.layers)
        plan = getattr(restart, "plan", None)  # an object of your own may have none
        restarts_filters = plan is None or (plan.control != "none" and plan.remedy is None)
        selects_again = plan is None or (
            plan.remedy is None and (plan.max_restarts is None or plan.max_restarts > 1)
        )
        return custom_scalars_layout(
            restart.monitor,
            list(restart.scorer.layers),
            restarts_filters=restarts_filters,
            selects_again=selects_again,
        )

    def _write_layout(self, layout: layout_pb2.Layout | None) -> None:
        if layout is not None:
            written = custom_scalar.pb(layout).SerializeToString()
            tf.summary.experimental.write_raw_pb(written, step=0)
            self._has_layout = True

    @contextlib.contextmanager
    def _recording(self) -> Iterator[None]:
        """Directs summaries to this writer."""
        if self._broken:
            yield  # without a default writer, summaries are dropped
            return
        try:
            # With an integer update_freq the stock callback leaves recording off between batches.
            with self._writer.as_default(), tf.summary.record_if(True):
                yield
            self._writer.flush()  # a run can be watched, and a killed process loses little
        except tf.errors.OpError as error:
            self._broken = True
            reason = error.message.splitlines()[0]
            warnings.warn(
                f"No more records of restarts are written to {self.log_dir}: {reason}", stacklevel=2
            )

    def _write_image(self, when: str, event: RestartEvent, restart: Restarts, epoch: int) -> None:
        filter_layer = _drawn_layer(self.image_layer, restart.scorer.layers)
        if filter_layer is not None and filter_layer.name in restarted_layers(event):
            kernel = kernels.by_filter(
                filter_layer.layer, kernels.incoming_kernel(filter_layer.layer).value
            )
            filters = np.moveaxis(np.asarray(kernel), filter_layer.filter_axis, 0)
            picture = draw_filters(filters, framed=event.layers[filter_layer.name].filters)
            tf.summary.image(f"filters/{filter_layer.name}/{when}", picture[np.newaxis], epoch)


def markdown_table(settings: Mapping[str, Any]) -> str:
    """Settings as a Markdown table, one row each."""

    def code(value: Any) -> str:
        # TensorBoard shows the backslash that other readers need before a pipe in code.
        text = " ".join(str(value).split()).replace("`", "'")
        return f"`{text}`" if text else ""

    rows = [f"| {code(name)} | {code(value)} |" for name, value in settings.items()]
    return "\n".join(["| setting | value |", "|---|---|", *rows])


def _write_scalars(scalars: Mapping[str, float], step: int) -> None:
    for tag, value in scalars.items():
        tf.summary.scalar(tag, value, step)


def _drawn_layer(
    image_layer: str | None, filter_layers: Mapping[str, FilterLayer]
) -> FilterLayer | None:
    """The layer to draw; None where none was given and the first is not a 2D convolution."""
    flat = {
        name: filter_layer
        for name, filter_layer in filter_layers.items()
        if len(kernels.incoming_kernel(filter_layer.layer).shape) == 4
    }
    if image_layer is None:
        return flat.get(next(iter(filter_layers), ""))
    if image_layer not in flat:
        raise ValueError(
            f"image_layer must be a scored 2D convolution, one of {list(flat)}. "
            f"Received: {image_layer!r}"
        )
    return flat[image_layer]
