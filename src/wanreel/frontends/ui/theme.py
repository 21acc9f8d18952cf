"""The theme that Gradio's own parts wear: the colours and fonts of static/css/tokens.css, so that both look alike."""

from __future__ import annotations

from gradio.themes.base import Base

#: System fonts: no file is fetched, and text looks as people are used to.
_SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Noto Sans CJK SC", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def build_theme() -> Base:
    """Calm greys and one accent."""
    theme = Base(primary_hue="violet", neutral_hue="slate", font=_SANS, font_mono=_MONO)
    return theme.set(
        body_background_fill="#f6f6f9",
        body_background_fill_dark="#0f1016",
        body_text_color="#1b1c24",
        body_text_color_dark="#ececf3",
    )
