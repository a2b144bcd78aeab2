"""Several `fit`s in one process that take turns, an epoch each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import keras

from benchmarks.timing import Cost


class Turns:
    """Lets each of several `fit`s train an epoch while the others wait: A B C A B C.

    So each is measured under the same conditions as its neighbours, and no step is traced more than
    once. Each `fit` runs in a thread of its own, and all must have as many epochs.

    Attributes:
        costs: For each `fit`, the costs of its epochs, with all that callbacks do in them.
    """

    def __init__(self, fits: int):
        self.costs: list[list[Cost]] = [[] for _ in range(fits)]
        self._turn = 0
        self._changed = threading.Condition()
        self._error: BaseException | None = None

    def around(
        self, number: int, callbacks: Sequence[keras.callbacks.Callback] = ()
    ) -> list[keras.callbacks.Callback]:
        """The callbacks of a `fit`, between those that take its turn and its time."""
        start: list[Cost] = []

        def begin(epoch):
            if epoch:
                self._pass_on()  # only now, so that nothing of this fit runs in another's turn
            self._wait_for(number)
            start[:] = [Cost.now()]

        def end():
            self.costs[number].append(Cost.now() - start[0])

        first = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: begin(epoch))
        last = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: end(), on_train_end=lambda logs: self._pass_on()
        )
        return [first, *callbacks, last]

    def run(self, fits: Sequence[Callable[[], object]]) -> list[list[Cost]]:
        """Runs them all; returns `costs`, or raises the first error."""
        threads = [threading.Thread(target=self._run, args=(fit,), daemon=True) for fit in fits]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._error is not None:
            raise self._error
        return self.costs

    def _run(self, fit: Callable[[], object]) -> None:
        try:
            fit()
        except BaseException as error:
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _pass_on(self) -> None:
        with self._changed:
            self._turn = (self._turn + 1) % len(self.costs)
            self._changed.notify_all()

    def _wait_for(self, number: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._turn == number or self._error is not None)
            if self._error is not None:
                raise RuntimeError("another fit has failed")
