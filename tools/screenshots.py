"""Takes pictures of TensorBoard and of reports in a real browser.

    python tools/screenshots.py tf_logs/RUN docs/images
    python tools/screenshots.py tf_logs/RUN/report.html docs/images --widths=1280,390

It needs Chromium (on Debian: apt install chromium), which runs without a window.
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
    "custom_scalars": "custom_scalars&_smoothingWeight=0",
    "images": "images",
    "text": "text",
    "hparams": "hparams",
}


def main() -> None:
    """Starts TensorBoard and takes a picture of each tab, or one of a page at each width."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=pathlib.Path, help="A log folder, or an HTML file.")
    parser.add_argument("output", type=pathlib.Path, help="Folder of the pictures.")
    parser.add_argument("--tabs", default="custom_scalars,images", help=", ".join(TABS))
    parser.add_argument("--widths", default="1280,390", help="Widths of a page in pixels.")
    parser.add_argument("--height", type=int, default=1600, help="Height of a page in pixels.")
    parser.add_argument("--seconds", type=int, default=30, help="How long a tab may load.")
    chosen = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("error: Chromium is not installed: apt install chromium")
    chosen.output.mkdir(parents=True, exist_ok=True)
    if chosen.source.is_file():
        for width in chosen.widths.split(","):
            picture = chosen.output / f"{chosen.source.stem}_{width}.png"
            url = chosen.source.resolve().as_uri()
            _photograph(browser, url, picture, (int(width), chosen.height), seconds=5)
        return
    board = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", f"--logdir={chosen.source}", f"--port={PORT}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(f"http://localhost:{PORT}/data/runs")
        for tab in chosen.tabs.split(","):
            picture = chosen.output / f"tensorboard_{tab}.png"
            url = f"http://localhost:{PORT}/?darkMode=false#{TABS[tab]}"
            _photograph(browser, url, picture, (1400, 1120), chosen.seconds)
    finally:
        board.terminate()
        board.wait()


def _photograph(
    browser: str, url: str, picture: pathlib.Path, size: tuple[int, int], seconds: int
) -> None:
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                *(browser, "--headless=new", "--no-sandbox", "--disable-gpu"),
                *("--hide-scrollbars", f"--window-size={size[0]},{size[1]}"),
                f"--user-data-dir={profile}",
                f"--virtual-time-budget={1000 * seconds}",
                f"--screenshot={picture.resolve()}",
                url,
            ],
            check=True,
            timeout=10 * seconds,
            stderr=subprocess.DEVNULL,
        )
    print(picture, flush=True)


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
