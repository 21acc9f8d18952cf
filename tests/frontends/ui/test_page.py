"""How the page brings Gradio in."""

from __future__ import annotations

import inspect

import pytest

from wanreel.frontends.ui import page


def test_gradio_is_told_that_its_classes_have_no_file_and_nobody_else_is() -> None:
    component = type("Textbox", (), {"__module__": "gradio.nothing.such"})
    with pytest.raises(RuntimeError, match="in between"), page._no_stubs():
        with pytest.raises(OSError):
            inspect.getfile(component)
        assert inspect.getfile(pytest.Session).endswith(".py")
        raise RuntimeError("in between")
    assert inspect.getfile(inspect.Signature) == inspect.__file__
    with pytest.raises(TypeError):
        inspect.getfile(component)
