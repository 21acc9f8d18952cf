"""The page's HTML as it leaves: Gradio's own document without what points elsewhere, under a strict policy."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Scope

from wanreel.frontends.ui.words import words

#: Descriptions for other sites, which name Gradio's; its script for iframes; its manifest.
_FOREIGN = re.compile(
    r'<meta\s+(?:property|name)="(?:og|twitter):[^>]*>\s*|<link rel="manifest"[^>]*>\s*'
    r"|<script data-gradio-mode>.*?</script>\s*<script>.*?iframeResizer.*?</script>\s*",
    re.DOTALL,
)
#: Files with a hash in their name never change.
KEEP = "private, max-age=31536000, immutable"
_MODE = '<script>window.__gradio_mode__ = "app";</script>'
_SCRIPT = re.compile(r"<script(?=[\s>])")


def policy(nonce: str) -> str:
    """The Content-Security-Policy of the page.

    Scripts only from here: no eval, so Gradio's `js=` handlers and HTML templates can't be used on it. Gradio writes style
    attributes, so styles may be inline.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' 'nonce-{nonce}'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' blob: data:",
            "media-src 'self' blob:",
            "connect-src 'self'",
            "font-src 'self'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )


def tightened(document: str, nonce: str) -> str:
    """Gradio's document without foreign addresses, its scripts allowed by `nonce`."""
    ours = _FOREIGN.sub(lambda match: _MODE if match[0].startswith("<script") else "", document)
    return _SCRIPT.sub(f'<script nonce="{nonce}"', ours)


async def collected(app: ASGIApp, scope: Scope) -> str:
    """What `app` answers to this GET, as text."""
    chunks: list[bytes] = []

    said = False

    async def receive() -> Message:
        nonlocal said
        if said:
            await asyncio.Event().wait()  # nobody leaves: whoever waits for that is cancelled at the end
        said = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            chunks.append(message.get("body", b""))

    # Whole and unpacked: ranges and encodings are the answer's matter.
    plain = [(name, value) for name, value in scope["headers"] if name not in (b"accept-encoding", b"range")]
    asked: dict[str, Any] = {**scope, "method": "GET", "headers": plain}
    await app(asked, receive, send)
    return b"".join(chunks).decode()


def yielding(styles: str) -> Response:
    """A style sheet of Gradio's, in a layer: its rules for every button and field give way to ours."""
    headers = {"cache-control": KEEP}
    return Response(f"@layer gradio {{{styles}}}", media_type="text/css", headers=headers)


def waiting(fault: str, root: str) -> Response:
    """The page's place while there is none: it looks again by itself, or says how to get one."""
    text = words("en")
    title, line = text[f"start.{fault or 'starting'}.title"], text[f"start.{fault or 'starting'}.text"]
    again = "" if fault else '<meta http-equiv="refresh" content="1">'
    spinner = "" if fault else '<div class="spin" role="presentation"></div>'
    body = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Wanreel</title>{again}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="stylesheet" href="{root}/studio/static/css/plain.css"></head>'
        f'<body><main class="card">{spinner}<h1>{title}</h1><p>{line}</p></main></body></html>'
    )
    csp = "default-src 'none'; style-src 'self'; frame-ancestors 'none'"
    return HTMLResponse(body, 503 if not fault else 501, {"content-security-policy": csp, "retry-after": "1"})
