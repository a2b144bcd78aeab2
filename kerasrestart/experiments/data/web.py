"""HTTP requests with a timeout that covers the name lookup."""

from __future__ import annotations

import queue
import threading
import urllib.error
import urllib.request
from http.client import HTTPResponse

from kerasrestart.network.text import one_line


def open_url(url: str, timeout: float, method: str = "GET") -> HTTPResponse:
    """Opens a URL; the timeout covers the name lookup too, which no socket timeout does.

    Args:
        url: The URL.
        timeout: Longest wait in seconds, for the answer and for each block that is read later.
        method: The HTTP method. Defaults to `"GET"`.

    Raises:
        OSError: There is no answer in time, or the answer is an error. The message is one line.
    """
    answer: queue.SimpleQueue[HTTPResponse | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method=method)
            answer.put(urllib.request.urlopen(request, timeout=timeout))
        except Exception as error:
            answer.put(error)

    # A name lookup cannot be interrupted, so a thread does the waiting.
    threading.Thread(target=ask, daemon=True).start()
    try:
        response = answer.get(timeout=timeout)
    except queue.Empty:
        raise TimeoutError(f"no answer within {timeout:g} s") from None
    if isinstance(response, Exception):  # ValueError too: a malformed proxy setting
        # The text of a URLError is its reason in brackets.
        reason = response.reason if type(response) is urllib.error.URLError else response
        raise OSError(one_line(reason) or type(response).__name__) from response
    return response
