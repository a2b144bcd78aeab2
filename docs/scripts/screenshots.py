"""Takes pictures of TensorBoard, of pages and of the terminal in a real browser.

    python docs/scripts/screenshots.py tf_logs docs/images --tabs=custom_scalars,images,hparams
    python docs/scripts/screenshots.py tf_logs/RUN/report.html docs/images --widths=1280,390
    python docs/scripts/screenshots.py tf_logs/RUN docs/images --figure=filters
    python docs/scripts/screenshots.py "python -m kerasrestart.report tf_logs" out --widths=80,120

A log folder, an HTML file, a run's folder with the name of a figure of its report, or a command,
whose output is taken from a pseudo-terminal of a given width.

It needs Chromium (on Debian: apt install chromium), which runs without a window.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pathlib
import pty
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
import urllib.request

from PIL import Image
from rich.console import Console
from rich.text import Text

PORT = 6123
MAX_BYTES = 90_000  # of a picture; larger ones get a palette
TABS = {
    "scalars": "timeseries",
    "custom_scalars": "custom_scalars&_smoothingWeight=0",
    "images": "images",
    "text": "text",
    "hparams": "hparams",
}
_TERMINAL = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 10px; background: #fff }}
pre {{ font: 14px/19px "DejaVu Sans Mono", monospace; border-right: 1px dotted #999;
  width: {columns}ch; white-space: pre-wrap; word-break: break-all }}
{stylesheet}</style><pre>{code}</pre>"""


def main() -> None:
    """Takes the pictures that the arguments ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="A log folder, an HTML file, a run's folder or a command.")
    parser.add_argument("output", type=pathlib.Path, help="Folder of the pictures.")
    parser.add_argument("--tabs", default="custom_scalars,images", help=", ".join(TABS))
    parser.add_argument("--widths", help="Widths of a page in pixels, or of a terminal in columns.")
    parser.add_argument("--height", type=int, default=1600, help="Height of a page in pixels.")
    parser.add_argument("--figure", help="A figure of a run's report, such as filters.")
    parser.add_argument("--seconds", type=int, default=30, help="How long a tab may load.")
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    source = pathlib.Path(chosen.source)
    if chosen.figure:
        _draw(source, chosen.figure, chosen.output / f"report_{chosen.figure}.png")
        return
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("error: Chromium is not installed: apt install chromium")
    if source.is_file():
        for width in _numbers(chosen.widths or "1280,390"):
            picture = chosen.output / f"{source.stem}_{width}.png"
            url = source.resolve().as_uri()
            _photograph(browser, url, picture, (width, chosen.height), seconds=5)
    elif source.is_dir():
        _photograph_tabs(browser, source, chosen)
    else:
        for columns in _numbers(chosen.widths or "80,120"):
            _photograph_terminal(
                browser, chosen.source, columns, chosen.output / f"terminal_{columns}.png"
            )


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _draw(folder: pathlib.Path, name: str, picture: pathlib.Path) -> None:
    from kerasrestart.experiments.records.history import read_history
    from kerasrestart.experiments.records.score_log import SCORES, read_scores
    from kerasrestart.experiments.report.drawing import to_bytes
    from kerasrestart.experiments.report.run_figures import RunCurves, draw_run
    from kerasrestart.experiments.report.run_report import load_record

    events, scored = load_record(folder)["events"], read_scores(folder / SCORES)
    curves = RunCurves(read_history(folder), events, *scored)
    picture.write_bytes(to_bytes(draw_run(curves)[name], "png"))
    print(picture, flush=True)


def _photograph_tabs(browser: str, logs: pathlib.Path, chosen: argparse.Namespace) -> None:
    board = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", f"--logdir={logs}", f"--port={PORT}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(f"http://localhost:{PORT}/data/runs")
        for tab in chosen.tabs.split(","):
            for width in _numbers(chosen.widths or "1400"):
                size = f"_{width}" if chosen.widths else ""
                picture = chosen.output / f"tensorboard_{tab}{size}.png"
                url = f"http://localhost:{PORT}/?darkMode=false#{TABS[tab]}"
                _photograph(browser, url, picture, (width, chosen.height), chosen.seconds)
    finally:
        board.terminate()
        board.wait()


def _photograph_terminal(browser: str, command: str, columns: int, picture: pathlib.Path) -> None:
    text = Text.from_ansi(_output(command, columns))
    console = Console(record=True, file=open(os.devnull, "w"), width=500)  # noqa: PTH123, SIM115
    console.print(text, soft_wrap=True, highlight=False)
    page = console.export_html(code_format=_TERMINAL.replace("{columns}", str(columns)))
    with tempfile.TemporaryDirectory() as place:
        file = pathlib.Path(place) / "terminal.html"
        file.write_text(page)
        lines = sum(-(-len(line) // columns) or 1 for line in text.plain.splitlines())
        height = max(200, 19 * lines + 60)
        _photograph(browser, file.as_uri(), picture, (max(500, 9 * columns + 30), height), 3)


def _output(command: str, columns: int) -> str:
    """What a command writes to a terminal; of lines that it overwrites, the last state."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    process = subprocess.Popen(
        shlex.split(command), stdin=there, stdout=there, stderr=there, close_fds=True
    )
    os.close(there)
    received = b""
    try:
        while some := os.read(here, 1 << 16):
            received += some
    except OSError:  # Linux: the other side is closed
        pass
    process.wait()
    lines = received.decode(errors="replace").replace("\r\n", "\n").replace("\b", "").split("\n")
    return "\n".join(line.split("\r")[-1] for line in lines)


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
            timeout=10 * seconds + 60,
            stderr=subprocess.DEVNULL,
        )
    image = Image.open(picture).convert("RGB")
    image.save(picture, optimize=True)
    if picture.stat().st_size > MAX_BYTES:
        image = image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)
        image.save(picture, optimize=True)
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
