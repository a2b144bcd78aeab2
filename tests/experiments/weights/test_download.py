import contextlib
import hashlib
import http.server
import pathlib
import socket
import threading
import time

import pytest

from kerasrestart.experiments.weights.download import fetch_weights

CONTENT = b"some weights" * 200_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "home" / "models"


@pytest.fixture
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            kind = pathlib.PurePath(self.path).stem
            if kind == "missing":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            if kind == "silent":
                time.sleep(1)
            with contextlib.suppress(OSError):  # who asked has gone
                self.wfile.write(CONTENT[: 1000 if kind == "cut" else None])

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_file_is_fetched_once(server, cache):
    path = fetch_weights(f"{server}/weights.pth", DIGEST[:8])
    assert path == cache / "weights.pth"
    assert path.read_bytes() == CONTENT
    assert fetch_weights("http://127.0.0.1:9/weights.pth", DIGEST[:8]) == path  # from the cache


@pytest.mark.parametrize("kind", ["weights", "cut"])
def test_other_content_than_promised_is_refused_and_not_kept(server, cache, kind):
    prefix = "00000000" if kind == "weights" else DIGEST[:8]
    with pytest.raises((ValueError, OSError), match=rf"{kind}\.pth .*"):
        fetch_weights(f"{server}/{kind}.pth", prefix)
    assert not list(cache.iterdir())


def test_a_damaged_file_in_the_cache_is_refused_and_named(cache):
    cache.mkdir(parents=True)
    (cache / "weights.pth").write_bytes(CONTENT[1:])
    with pytest.raises(ValueError, match=r"weights.pth is damaged: .* begin with") as error:
        fetch_weights("http://127.0.0.1:9/weights.pth", DIGEST[:8])
    assert "remove the file" in str(error.value)


def test_offline_the_error_comes_within_seconds_and_says_how_to_get_the_file(cache):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(OSError, match="fetch it where there is a network") as error:
        fetch_weights(f"http://127.0.0.1:{port}/weights.pth", DIGEST[:8])
    assert time.monotonic() - start < 5
    assert str(cache / "weights.pth") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["silent", "missing"])
def test_a_server_that_does_not_give_the_file_is_told_of(server, cache, kind):
    with pytest.raises(OSError, match=f"{kind}.pth cannot be downloaded"):
        fetch_weights(f"{server}/{kind}.pth", DIGEST[:8], timeout=0.3)
    assert not list(cache.iterdir())


def test_a_server_that_never_answers_is_given_up(cache):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/weights.pth"
        with pytest.raises(OSError, match=r"no answer within 0\.2 s|timed out"):
            fetch_weights(url, DIGEST[:8], timeout=0.2)
