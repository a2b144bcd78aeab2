"""Time to the first training step, and peak memory, of a process of its own.

    python -m benchmarks.first_step NETWORK {plain,scored}

Prints a line of JSON: seconds from the start to the end of the first step, imports and building
included, by both clocks; what the imports took; and the largest resident memory in MiB after three
steps.
"""

import json
import pathlib
import re
import resource
import sys
import time

START = time.process_time(), time.perf_counter()


def peak_mib() -> float:
    """Peak memory of this process."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent process had when it forked
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text()).group(1)) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes, on macOS


def main():
    network, kind = sys.argv[1:]
    import keras

    keras_imported = time.process_time()
    callbacks = []
    if kind == "scored":
        import kerasrestart

        callbacks = [kerasrestart.PartialRestart(monitor="loss")]
    own_imported = time.process_time()
    from benchmarks.networks import NETWORKS

    network, first = NETWORKS[network], []

    def note(batch):
        if not batch:
            first[:] = [time.process_time() - START[0], time.perf_counter() - START[1]]

    callbacks.append(
        keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: note(batch))
    )
    network.build().fit(network.batches(3), shuffle=False, verbose=0, callbacks=callbacks)
    cpu, wall = first
    imports = {"keras": keras_imported - START[0], "kerasrestart": own_imported - keras_imported}
    print(json.dumps({"cpu": cpu, "wall": wall, "imports": imports, "peak_mib": peak_mib()}))


if __name__ == "__main__":
    main()
