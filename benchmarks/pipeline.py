"""What the input pipeline costs beside the training step that it feeds.

    python -m benchmarks.pipeline [--pairs=5] [--steps=60]

Batches of 128 of the built-in set: fetched alone, fetched and augmented, and a MiniNet training
step on a batch in memory. Interleaved in one process; CPU time of all threads; median
of the ratios of each round, with their range.
"""

import statistics
import time

import keras
from absl import app, flags

from kerasrestart import models
from kerasrestart.experiments import data

PAIRS = flags.DEFINE_integer("pairs", 5, "Rounds of measurement.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 60, "Batches, and steps, in each.", lower_bound=1)
BATCH = 128


def main(argv):
    del argv
    images = data.load("shapes")
    scale = {"mean": images.mean, "std": images.std}
    plain, augmented = (
        iter(data.train_batches(images.train, BATCH, seed=0, augment=augment, **scale))
        for augment in (False, True)
    )
    model = models.mininet()
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    batch = next(plain)
    works = {
        "plain": lambda: next(plain),
        "augmented": lambda: next(augmented),
        "step": lambda: model.train_on_batch(*batch),
    }
    for work in works.values():
        cpu_ms(work, 10)
    rounds = [
        {name: cpu_ms(work, STEPS.value) for name, work in works.items()}
        for _ in range(PAIRS.value)
    ]
    for name in ("plain", "augmented"):
        ratios = [r[name] / r["step"] for r in rounds]
        print(
            f"{name}: {statistics.median(r[name] for r in rounds):.2f} ms of CPU a batch, "
            f"{100 * statistics.median(ratios):.1f} % of a step "
            f"({100 * min(ratios):.1f} to {100 * max(ratios):.1f}, n = {len(ratios)})"
        )


def cpu_ms(work, times):
    """CPU time of one call in milliseconds, over all threads of the process."""
    start = time.process_time()
    for _ in range(times):
        work()
    return 1000 * (time.process_time() - start) / times


if __name__ == "__main__":
    app.run(main)
