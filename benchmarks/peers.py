"""The same score in PyTorch by hooks, beside ours.

    python -m benchmarks.peers [--pairs=7] [--steps=64]

MiniNet with the same weights, batches and number of threads in three processes, which take turns
by epochs: ours with exact scores on every batch; PyTorch with a forward and a backward hook on each
activation, the usual way; PyTorch without scores. Before anything is timed, ours and PyTorch's
scores of the same batch must be the same numbers. About two minutes on two cores.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
from multiprocessing.connection import Connection

import numpy as np
from absl import app, flags

from benchmarks.networks import NETWORKS
from benchmarks.timing import Cost, Row, cores, ratios, report

NETWORK = NETWORKS["mininet"]


def define_flags():
    flags.DEFINE_integer("pairs", 7, "Epochs of each kind, warm-up apart.", lower_bound=1)
    flags.DEFINE_integer("steps", 64, "Steps of an epoch.", lower_bound=1)
    flags.DEFINE_string("output", "tf_logs/peers.md", "Where the table is written.")


def main(argv):
    if argv[1:]:
        raise app.UsageError(f"The command line must have flags only. Received: {argv[1:]}")
    if importlib.util.find_spec("torch") is None:
        print('benchmarks.peers needs PyTorch: pip install ".[bench]"', flush=True)
        return
    ours, hooks, plain = measure(flags.FLAGS.steps, flags.FLAGS.pairs)
    label, target = f"mininet, {NETWORK.side} px, {NETWORK.batch}", "2.00 or more"
    rows = [
        Row("PyTorch with hooks / ours, CPU time of an epoch", label, ratios(hooks, ours)),
        Row(
            "PyTorch with hooks / ours, wall time of an epoch",
            label,
            ratios(hooks, ours, "wall"),
            target=target,
        ),
        Row("PyTorch with hooks / without, CPU time", label, ratios(hooks, plain)),
        Row("PyTorch with hooks / without, wall time", label, ratios(hooks, plain, "wall")),
    ]
    notes = [f"{cores()} threads each; both gave the same scores from the same weights and batch."]
    report("python -m benchmarks.peers", rows, notes, flags.FLAGS.output)


def measure(steps: int, pairs: int, warm_up: int = 1) -> list[list[Cost]]:
    """Costs of epochs: ours, PyTorch with hooks, PyTorch without scores, which took turns.

    Raises:
        AssertionError: Ours and PyTorch's scores are not the same.
    """
    workers = [_Worker(ours_work), _Worker(torch_work, True), _Worker(torch_work, False)]
    try:
        weights, expected = workers[0].ask("scores", None)
        for worker in workers[1:]:
            scores = worker.ask("scores", weights)
            for name in scores:
                np.testing.assert_allclose(scores[name], expected[name], rtol=1e-3, atol=1e-8)
        if list(workers[1].ask("scores", weights)) != list(expected):
            raise AssertionError("PyTorch has scored other layers")
        costs = [[worker.ask("epoch", steps) for worker in workers] for _ in range(warm_up + pairs)]
        return [list(of_worker) for of_worker in zip(*costs[warm_up:], strict=True)]
    finally:
        for worker in workers:
            worker.process.terminate()


class _Worker:
    """A process that does as it is asked, and sleeps in between."""

    def __init__(self, work, *arguments):
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self.process = context.Process(target=work, args=(there, *arguments), daemon=True)
        self.process.start()
        there.close()

    def ask(self, what: str, argument: object) -> object:
        self._here.send((what, argument))
        return self._here.recv()  # EOFError where the process has died


def ours_work(pipe: Connection) -> None:
    """Trains MiniNet in `fit` with PartialRestart, an epoch each time it is asked to."""
    import keras
    import tensorflow as tf

    import kerasrestart

    tf.config.threading.set_intra_op_parallelism_threads(cores())
    model, (images, labels) = NETWORK.build(), NETWORK.arrays()
    what, steps = pipe.recv()
    if what == "scores":
        scores = kerasrestart.score_filters(model, images, labels)
        weights = {
            "/".join(weight.path.split("/")[-2:]): weight.numpy() for weight in model.weights
        }
        pipe.send((weights, scores))
        what, steps = pipe.recv()
    start = []

    def begin(epoch):
        if epoch:
            pipe.recv()
        start[:] = [Cost.now()]

    first = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: begin(epoch))
    last = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: pipe.send(Cost.now() - start[0])
    )
    restart = kerasrestart.PartialRestart(monitor="loss", patience=10**6)
    callbacks = [first, restart, last]
    batches = NETWORK.batches(steps)
    model.fit(batches, epochs=10**6, shuffle=False, verbose=0, callbacks=callbacks)


def torch_work(pipe: Connection, hooks: bool) -> None:
    """Trains MiniNet in PyTorch, an epoch each time it is asked to."""
    import torch

    torch.set_num_threads(cores())
    model = torch_mininet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    images, labels = NETWORK.arrays()
    images = torch.tensor(images.transpose(0, 3, 1, 2).copy())
    labels = torch.tensor(labels.astype("int64"))
    scores = HookedScores(model) if hooks else None

    def step(train=True):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        if train:
            optimizer.step()

    while True:
        what, argument = pipe.recv()
        if what == "scores":
            load_weights(model, argument)
            step(train=False)
            pipe.send(scores.result() if scores else {})
        else:
            start = Cost.now()
            if scores:
                scores.reset()
            for _ in range(argument):
                step()
            if scores:
                scores.result()
            pipe.send(Cost.now() - start)


def torch_mininet():
    """`kerasrestart.experiments.models.mininet` in PyTorch."""
    from torch import nn

    pooling = {"kernel_size": 3, "stride": 2, "ceil_mode": True}
    layers = {
        "conv1": nn.Conv2d(3, 32, 5, padding=2),
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(**pooling),
        "conv2": nn.Conv2d(32, 32, 5, padding=2),
        "relu2": nn.ReLU(),
        "pool2": nn.AvgPool2d(**pooling),
        "conv3": nn.Conv2d(32, 64, 5, padding=2),
        "relu3": nn.ReLU(),
        "pool3": nn.AvgPool2d(**pooling),
        "flatten": nn.Flatten(),
        "dense1": nn.Linear(1024, 64),
        "relu4": nn.ReLU(),
        "logits": nn.Linear(64, 10),
    }
    model = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return model


def weights_of(model) -> dict[str, np.ndarray]:
    """The weights of a Keras model, by the names `layer/kernel`."""
    return {"/".join(weight.path.split("/")[-2:]): weight.numpy() for weight in model.weights}


def load_weights(model, weights: dict[str, np.ndarray]) -> None:
    """Gives a PyTorch MiniNet the weights of a Keras one, as `weights_of` names them."""
    import torch

    for name, layer in model.named_children():
        if not list(layer.parameters()):
            continue
        kernel = weights[f"{name}/kernel"]
        if kernel.ndim == 4:
            kernel = kernel.transpose(3, 2, 0, 1)
        elif name == "dense1":  # behind a flattened 4x4x64 map, of which PyTorch's is 64x4x4
            kernel = kernel.reshape(4, 4, 64, 64).transpose(3, 2, 0, 1).reshape(64, 1024)
        else:
            kernel = kernel.T
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(kernel.copy()))
            layer.bias.copy_(torch.tensor(weights[f"{name}/bias"]))


class HookedScores:
    """The Taylor score by a forward and a backward hook on each convolution's activation."""

    def __init__(self, model):
        layers = dict(model.named_children())
        self._maps, self._sums, self._examples = {}, {}, 0
        for number in (1, 2, 3):
            name, relu = f"conv{number}", layers[f"relu{number}"]
            relu.register_forward_hook(lambda _, inputs, out, name=name: self._keep(name, out))
            relu.register_full_backward_hook(
                lambda _, inputs, grads, name=name: self._add(name, grads[0])
            )

    def _keep(self, name, out):
        self._maps[name] = out.detach()

    def _add(self, name, gradient):
        z = self._maps.pop(name)
        # The loss is a mean over the batch.
        of_batch = len(z) * (z * gradient).mean(dim=(2, 3)).abs().sum(dim=0)
        self._sums[name] = self._sums.get(name, 0) + of_batch
        if name == "conv1":
            self._examples += len(z)

    def reset(self):
        """Forgets all examples."""
        self._sums, self._examples = {}, 0

    def result(self) -> dict[str, np.ndarray]:
        """By layer name the scores, `[filters]`."""
        return {name: (self._sums[name] / self._examples).numpy() for name in sorted(self._sums)}


if __name__ == "__main__":
    define_flags()
    app.run(main)
