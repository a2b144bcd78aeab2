"""Images and the command line of the runs in this folder, without what a process costs."""

import functools
import sys
import types

import keras
import pytest
import tensorflow as tf

from kerasrestart.experiments.data import shapes
from kerasrestart.experiments.data.dataset import Split
from kerasrestart.experiments.report import run_report


@pytest.fixture(autouse=True, scope="package")
def _graphs_are_rewritten():
    """As in the processes that are started here: runs are compared bit for bit."""
    off = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
    yield
    tf.config.optimizer.set_experimental_options(off)


@pytest.fixture(autouse=True, scope="package")
def _images_are_drawn_once():
    """Draws the 20,000 images of the default once for all runs in this process."""
    drawn = functools.lru_cache(3)(shapes.draw_shapes)

    def copies(count, seed):
        split = drawn(count, seed)
        return Split(split.images.copy(), split.labels.copy())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "draw_shapes", copies)
        yield


@pytest.fixture(autouse=True, scope="package")
def _pages_are_not_drawn():
    """Leaves figures out of the pages of runs: tests of the report draw them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_report, "to_bytes", lambda figure, kind: b"<svg></svg>")
        yield


@pytest.fixture
def typed(monkeypatch, capsys):
    """A function that calls the command line in this process, which saves an import."""
    from kerasrestart.experiments.run.command import entry_point

    def call(*arguments, cwd):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["kerasrestart", *arguments])
        keras.utils.clear_session()
        with pytest.raises(SystemExit) as ended:
            entry_point()
        out, err = capsys.readouterr()
        return types.SimpleNamespace(returncode=ended.value.code, stdout=out, stderr=err)

    return call
