"""What a MiniNet training step costs in mixed_bfloat16 beside float32.

    python -m benchmarks.precision [--pairs=5] [--steps=60]

Batches of 128 random images in memory, interleaved in one process; CPU time of all threads; median
of the ratios of each round, with their range. bfloat16 pays on CPUs with AVX512-BF16 or AMX.
"""

import statistics

import keras
import numpy as np
from absl import app

from benchmarks.pipeline import BATCH, PAIRS, STEPS, cpu_ms
from kerasrestart import models


def main(argv):
    del argv
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, 32, 32, 3)).astype("float32")
    y = rng.integers(0, 10, BATCH)
    works = {}
    for policy in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        model = models.mininet()
        model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        works[policy] = lambda model=model: model.train_on_batch(x, y)
    for work in works.values():
        cpu_ms(work, 5)
    rounds = [
        {policy: cpu_ms(work, STEPS.value) for policy, work in works.items()}
        for _ in range(PAIRS.value)
    ]
    ratios = [of["mixed_bfloat16"] / of["float32"] for of in rounds]
    for policy in works:
        print(f"{policy}: {statistics.median(of[policy] for of in rounds):.1f} ms of CPU a step")
    print(
        f"mixed_bfloat16 / float32: {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}, n = {len(ratios)})"
    )


if __name__ == "__main__":
    app.run(main)
