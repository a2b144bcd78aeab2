"""Takes the pictures of TensorBoard that the documents show, in a real browser.

    python tools/screenshots.py tf_logs/RUN docs/images

It needs Chromium (on Debian: apt install chromium), which it runs without a window.
"""

from __future__ import annotations

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

PORT = 6123
TABS = {
    "scalars": "timeseries",
    "custom_scalars": "custom_scalars",
    "images": "images",
    "text": "text",
    "hparams": "hparams",
}


def main() -> None:
    """Starts TensorBoard, and photographs each tab."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logdir", help="Folder of a run, or of several.")
    parser.add_argument("output", type=pathlib.Path, help="Folder of the pictures.")
    parser.add_argument("--tabs", default="custom_scalars,images", help=", ".join(TABS))
    parser.add_argument("--seconds", type=int, default=30, help="How long a page may load.")
    chosen = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("error: Chromium was expected, and is not installed: apt install chromium")
    chosen.output.mkdir(parents=True, exist_ok=True)
    board = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", f"--logdir={chosen.logdir}", f"--port={PORT}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(f"http://localhost:{PORT}/data/runs")
        for tab in chosen.tabs.split(","):
            with tempfile.TemporaryDirectory() as profile:
                subprocess.run(
                    [
                        *(browser, "--headless=new", "--no-sandbox", "--disable-gpu"),
                        *("--hide-scrollbars", "--window-size=1400,1120"),
                        f"--user-data-dir={profile}",
                        f"--virtual-time-budget={1000 * chosen.seconds}",
                        f"--screenshot={(chosen.output / f'tensorboard_{tab}.png').resolve()}",
                        f"http://localhost:{PORT}/?darkMode=false#{TABS[tab]}",
                    ],
                    check=True,
                    timeout=10 * chosen.seconds,
                    stderr=subprocess.DEVNULL,
                )
            print(chosen.output / f"tensorboard_{tab}.png", flush=True)
    finally:
        board.terminate()
        board.wait()


def _wait(url: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                sys.exit("error: TensorBoard did not start")
            time.sleep(0.5)


if __name__ == "__main__":
    main()
