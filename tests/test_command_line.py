"""What the command lines share."""

import os
import platform

import pytest

from kerasrestart.command_line import set_up_tensorflow

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"


@pytest.mark.parametrize(
    ("machine", "given", "then"),
    [("x86_64", None, "1"), ("AMD64", None, "1"), ("x86_64", "0", "0"), ("aarch64", None, None)],
)
def test_onednn_is_turned_on_where_it_helps_and_nobody_has_said_otherwise(
    monkeypatch, machine, given, then
):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setenv(ONEDNN, given or "")
    if given is None:
        monkeypatch.delenv(ONEDNN)
    set_up_tensorflow()
    assert os.environ.get(ONEDNN) == then
