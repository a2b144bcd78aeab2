"""Puts the scored step under `fit`, and chooses which of its batches are scored."""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kerasrestart.network.input_specs import is_missing
from kerasrestart.network.tensorflow_internals import replica_specs
from kerasrestart.scoring.scorer import Scorer
from kerasrestart.scoring.train_step import step_in_place

ScorerMaker = Callable[[Any], Scorer]


class AttachedScorer:
    """What `attach` gives: one scorer's part in the training of a model.

    Args:
        function: The function that trains the model.
        scorer: The scorer, or what makes it.
        every: How many batches come for each one that is scored.
        on_removed: Called when it is detached, or the fit was broken off.
        before_batch: Called just before each batch.

    Attributes:
        scorer: The scorer; None before the first batch where that is to make it.
        batches: How many batches of this epoch were trained on, or groups that run as one.
        scores: Whether batches are scored at present.
        on_removed: As given.
        before_batch: As given.
    """

    def __init__(
        self,
        function: ScoringFunction,
        scorer: Scorer | ScorerMaker,
        every: int,
        on_removed: Callable[[], None],
        before_batch: Callable[[], None],
    ):
        self.on_removed, self.before_batch = on_removed, before_batch
        self.scorer = scorer if isinstance(scorer, Scorer) else None
        self._make: Any = scorer
        self.batches = 0
        self._function = function
        self._every = every
        self.scores = True
        self._version = function.version

    @property
    def scores_next(self) -> bool:
        """Whether the next batch is scored."""
        return self.scores and self.batches % self._every == 0

    def prepare(self, data: Any) -> None:
        """Makes the scorer by the specs of a batch, where there is none yet."""
        if self.scorer is None:
            self.scorer = self._make(data)

    def begin_epoch(self, scores: bool = True) -> None:
        """Counts batches from the first again; attaches again where scoring was taken off.

        Args:
            scores: Whether any batch of this epoch is scored. Defaults to True.
        """
        self.batches, self.scores = 0, scores
        self._function.keep(self)

    def was_rebuilt(self) -> bool:
        """Whether the model was compiled, or its train function made, since the last such call.

        The model may then have another optimizer, and other layers that train.
        """
        self._function.check()
        rebuilt, self._version = self._version != self._function.version, self._function.version
        return rebuilt

    def detach(self) -> None:
        """Ends the scoring by this scorer; does nothing where that has ended."""
        self._function.remove(self)


class ScoringFunction:
    """A model's `train_function` that scores every n-th batch of an epoch, from the first.

    It chooses between functions that the model's `make_train_function` makes, Keras's or its own:
    one of the plain step, and one for each set of scorers whose turn it is. Each is traced when it
    first runs. The choice is made outside of the graph, so that a batch that is not scored costs
    what it costs without a scorer. With `steps_per_execution` the batches that Keras runs as one
    are scored as one: every n-th group.

    While it is attached the instance also has a `make_train_function`, by which it learns of a
    model that is compiled again, and of a `fit` that follows one that was broken off.

    Args:
        model: A compiled model.
    """

    def __init__(self, model: keras.Model):
        self.version = 0
        self._model = model
        self._scorings: list[AttachedScorer] = []
        self._functions: dict[tuple[int, ...], Callable[[Any], Any]] = {}
        self._own_make: dict[str, Any] = {}  # the make_train_function of this instance, if any
        self._may_be_new_fit = False
        self._in_fit = False
        self._iterator: weakref.ref | None = None
        self._epoch_begins = False

    def __call__(self, iterator: Any) -> Any:
        """Trains on the next batch; returns its logs."""
        begins = self._may_be_new_fit and _is_of_fit(iterator)
        self._may_be_new_fit = False
        if begins:
            # Keras calls no on_train_end when a fit is broken off, and this is another one.
            self.remove_all()
            self._model.make_train_function()
            return self._model.train_function(iterator)
        if self._in_fit and not _is_of_fit(iterator):
            # A train_on_batch after a fit that was broken off, or of a callback: not its batch.
            if () not in self._functions:
                self._functions[()] = self._function([])
            return self._functions[()](iterator)
        self._in_fit = _is_of_fit(iterator)
        if self._in_fit:
            self._watch(iterator)
        try:
            if any(scoring.scorer is None for scoring in self._scorings):
                iterator, data = _first_batch(iterator)
                for scoring in self._scorings:
                    scoring.prepare(data)
            for scoring in self._scorings:
                scoring.before_batch()
            logs = self._choose()(iterator)
        except (StopIteration, tf.errors.OutOfRangeError):
            raise  # the end of the data
        except BaseException:
            self.remove_all()
            raise
        for scoring in self._scorings:
            scoring.batches += 1
        return logs

    def add(self, scorer: Scorer | ScorerMaker, *options: Any) -> AttachedScorer:
        """Adds a scorer, with the options of `AttachedScorer`; it scores from the next batch on."""
        if self._may_be_new_fit:
            self.remove_all()
            self._may_be_new_fit = False
        scoring = AttachedScorer(self, scorer, *options)
        self.keep(scoring)
        scoring.was_rebuilt()  # attaching is not a compilation
        return scoring

    def keep(self, scoring: AttachedScorer) -> None:
        """Attaches a scoring that is not attached yet."""
        if scoring not in self._scorings:
            self._scorings.append(scoring)
            self._in_fit = False
        self.check()
        self._may_be_new_fit = False
        self._epoch_begins = True
        own = vars(self._model).get("make_train_function", self._make)
        if own != self._make:
            self._own_make = {"make_train_function": own}
        object.__setattr__(self._model, "make_train_function", self._make)
        self._model.train_function = self

    def check(self) -> None:
        """Checks whether the model was compiled since it was attached."""
        if self._scorings and self._model.train_function is not self:
            self._forget()
            self._model.train_function = self

    def remove(self, scoring: AttachedScorer) -> None:
        """Removes one scoring; with the last one the model trains by its own function again."""
        if scoring in self._scorings:
            self._scorings.remove(scoring)
            self._functions.clear()
            scoring.on_removed()
        if not self._scorings:
            self.remove_all()

    def remove_all(self) -> None:
        """Lets the model train by its own function again."""
        removed, self._scorings = self._scorings, []
        self._functions.clear()
        self._in_fit = False
        if vars(self._model).get("make_train_function") == self._make:
            object.__delattr__(self._model, "make_train_function")
            for name, own in self._own_make.items():
                object.__setattr__(self._model, name, own)
        if self._model.train_function is self:
            self._model.train_function = None
        for scoring in removed:
            scoring.on_removed()

    def _watch(self, iterator: Any) -> None:
        """Notices the end of a fit that is broken off, of which Keras tells no callback.

        `fit` holds the iterator of an epoch until the first batch of the next. So where it is gone
        and no epoch has begun, fit is too.
        """
        if self._iterator is None or self._iterator() is not iterator:
            self._iterator = weakref.ref(iterator, self._lost)
        self._epoch_begins = False

    def _lost(self, reference: weakref.ref) -> None:
        if reference is self._iterator and not self._epoch_begins and self._scorings:
            self.remove_all()
            self._model.make_train_function()

    def _forget(self) -> None:
        self._functions.clear()
        self.version += 1

    def _make(self, force: bool = False) -> Any:
        """Stands for `make_train_function` of the model."""
        if force or self._model.train_function is not self:
            self._forget()
            self._model.train_function = self
        if not force:
            self._may_be_new_fit = True
        return self

    def _choose(self) -> Callable[[Any], Any]:
        active = [scoring for scoring in self._scorings if scoring.scores_next]
        key = tuple(map(id, active))
        if key not in self._functions:
            self._functions[key] = self._function([scoring.scorer for scoring in active])
        return self._functions[key]

    def _function(self, scorers: list[Scorer]) -> Callable[[Any], Any]:
        """What the model makes of its training step, with these scorers around it."""
        model = self._model
        step = step_in_place(model, scorers)
        with _instance_attributes(model, "make_train_function", train_step=step, **self._own_make):
            model.train_function = None  # it would be kept, and not made again
            try:
                model.make_train_function()
                made = model.train_function
            finally:
                model.train_function = self

        def run(iterator: Any) -> Any:
            # A make_train_function of the model's own may look the step up only when it runs.
            with _instance_attributes(model, train_step=step):
                logs = made(iterator)
            if any(scorer.needs_step and not scorer.was_traced for scorer in scorers):
                raise ValueError(
                    f"make_train_function of model '{model.name}' must make, at each call, a "
                    "function that calls self.train_step, or no filter can be scored. Received: "
                    f"{type(model).__name__}.make_train_function, which does not"
                )
            return logs

        return run


def attach(
    model: keras.Model,
    scorer: Scorer | ScorerMaker,
    every: int = 1,
    on_removed: Callable[[], None] = lambda: None,
    before_batch: Callable[[], None] = lambda: None,
) -> AttachedScorer:
    """Makes `fit` train with the scored step, from the next batch on, until it is detached.

    Call it inside `fit`, from `on_train_begin`. Several scorers can be attached at once.

    Args:
        model: A compiled model, with Keras's training step or one of its own.
        scorer: A scorer of this model. Where that takes a batch to be made, as for a model that is
            not built, a function from the specs of a batch, as `train_step` takes it, to the
            scorer: it is called before the first batch.
        every: Every N-th batch of an epoch is scored, from the first. Defaults to 1.
        on_removed: Called once the model trains without this scorer: it was detached, or the fit
            was broken off, of which Keras tells no callback. Defaults to nothing.
        before_batch: Called just before each batch, when all callbacks have seen that it begins.
            Defaults to nothing.

    Returns:
        The handle of this scorer.
    """
    function = model.train_function
    if not isinstance(function, ScoringFunction):
        function = ScoringFunction(model)
    return function.add(scorer, every, on_removed, before_batch)


def _first_batch(iterator: Any) -> tuple[Any, Any]:
    """An iterator with the same batches, and the specs or arrays of its first."""
    if not _is_of_fit(iterator):
        first = next(iterator)
        return itertools.chain([first], iterator), first

    def spec_of(leaf: Any) -> Any:
        if is_missing(leaf):
            return None
        return next(iter(replica_specs(leaf)), leaf)

    return iterator, keras.tree.map_structure(spec_of, iterator.element_spec)


def _is_of_fit(iterator: Any) -> bool:
    """Whether an iterator is that of `fit`; `train_on_batch` brings a generator."""
    return isinstance(iterator, tf.data.Iterator | tf.distribute.DistributedIterator)


@contextlib.contextmanager
def _instance_attributes(model: keras.Model, *hidden: str, **values: Any):
    """Sets attributes of an instance, and hides some, for the length of a context."""
    names = [*hidden, *values]
    before = {name: vars(model)[name] for name in names if name in vars(model)}
    for name in before:
        object.__delattr__(model, name)
    for name, value in values.items():
        object.__setattr__(model, name, value)
    try:
        yield
    finally:
        for name in names:
            if name in vars(model):
                object.__delattr__(model, name)
        for name, value in before.items():
            object.__setattr__(model, name, value)
