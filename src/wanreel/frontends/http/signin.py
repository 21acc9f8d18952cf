"""SignIn: the screen on which a key is exchanged for a cookie, since players and streams can't send headers.

Needs no script. A key never stands in a URL; a link of the launcher's holds a token that works once.
"""

from __future__ import annotations

import html
import secrets
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from wanreel.frontends.http.entrance import Entrance
from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.keys import Caller, KeyRing, digest_of
from wanreel.frontends.http.rates import Rates
from wanreel.frontends.http.sessions import LIFETIME, LINK_PATH, Links, Sessions

PATH, OUT_PATH = "/sign-in", "/sign-out"
COOKIE = "wanreel_key"
#: Attempts a minute of one address.
ATTEMPTS = 12
_LONGEST_FORM = 8192


@dataclass
class SignIn:
    """The screen, over the keys."""

    entrance: Entrance
    keys: KeyRing
    sessions: Sessions
    links: Links
    attempts: Rates
    _routes: Router = field(init=False)

    def __post_init__(self) -> None:
        self._routes = Router(
            [
                Route(PATH, self._show, methods=["GET"]),
                Route(PATH, self._enter, methods=["POST"]),
                Route(LINK_PATH + "{token}", self._show_link, methods=["GET"]),
                Route(LINK_PATH + "{token}", self._follow, methods=["POST"]),
                Route(OUT_PATH, self._leave, methods=["POST"]),
            ]
        )

    def takes(self, path: str) -> bool:
        """Whether a path is one of these, which nobody needs a key for."""
        return path in (PATH, OUT_PATH) or path.startswith(LINK_PATH)

    def redirection(self) -> Response:
        """To the screen."""
        return RedirectResponse(self.entrance.root_path + PATH, 303)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._routes(scope, receive, send)

    async def _show(self, _request: Request) -> Response:
        return self._screen("")

    async def _enter(self, request: Request) -> Response:
        try:
            self._take_attempt(request)
        except Refused as refusal:
            return self._screen(refusal.message, refusal.status, refusal.headers)
        key = (await _form(request)).get("key", [""])[0].strip()
        if not key or self.keys.find(key) is None:
            return self._screen("This key is not known here. Check that it was copied whole.", 401)
        return self._signed_in(request, digest_of(key))

    async def _show_link(self, request: Request) -> Response:
        """A page with one button: whoever only looks at links, as chats and scanners do, uses none up."""
        path = html.escape(self.entrance.root_path + LINK_PATH + request.path_params["token"], quote=True)
        nonce = secrets.token_urlsafe(16)
        form = (
            f'<form method="post" action="{path}" id="link"><button>Open the studio</button></form>'
            f'<script nonce="{nonce}">document.getElementById("link").submit()</script>'
        )
        return _page("Welcome", "This link signs you in. It works once.", form, nonce)

    async def _follow(self, request: Request) -> Response:
        try:
            self._take_attempt(request)
        except Refused as refusal:
            return self._screen(refusal.message, refusal.status, refusal.headers)
        digest = self.links.redeem(request.path_params["token"])
        if digest is None:
            return self._screen("This link was used already, or its time is over. Sign in with a key.", 401)
        return self._signed_in(request, digest)

    async def _leave(self, request: Request) -> Response:
        answer = self.redirection()
        self._set_cookie(request, answer, "", 0)
        return answer

    def _take_attempt(self, request: Request) -> None:
        address = request.client.host if request.client else ""
        self.attempts.take(Caller(owner=address, scopes=frozenset()))

    def _signed_in(self, request: Request, digest: str) -> Response:
        answer = RedirectResponse(self.entrance.root_path + "/", 303)
        self._set_cookie(request, answer, self.sessions.issue(digest), int(LIFETIME))
        return answer

    def _set_cookie(self, request: Request, answer: Response, value: str, seconds: int) -> None:
        """For this site's own requests alone, never for scripts, never over plain http where there is https."""
        answer.set_cookie(
            COOKIE,
            value,
            max_age=seconds,
            path=self.entrance.root_path or "/",
            secure=request.url.scheme == "https" or self.entrance.public_url.startswith("https:"),
            httponly=True,
            samesite="strict",
        )

    def _screen(self, fault: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        told = f'<p class="fault" role="alert" id="fault">{html.escape(fault)}</p>' if fault else ""
        described = ' aria-describedby="fault" aria-invalid="true"' if fault else ""
        form = (
            f'<form method="post" action="{self.entrance.root_path}{PATH}"><label for="key">API key</label>'
            '<input id="key" name="key" type="password" autocomplete="current-password" required autofocus '
            f'spellcheck="false" placeholder="wanreel_…"{described}>{told}<button>Sign in</button></form>'
            '<p class="hint">Whoever runs this server makes keys with <code>wanreel keys create NAME</code>.</p>'
        )
        return _page("Sign in to Wanreel", "This server asks for a key.", form, "", status, headers)


async def _form(request: Request) -> dict[str, list[str]]:
    """The fields of a small form. Raises Refused."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_FORM:
            raise Refused(413, "too_large", "The form is too large.")
    return parse_qs(body.decode("utf-8", "replace"), max_num_fields=8)


def _page(
    title: str, line: str, content: str, nonce: str, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    style = secrets.token_urlsafe(16)
    scripts = f"script-src 'nonce-{nonce}'; " if nonce else ""
    policy = (
        f"default-src 'none'; {scripts}style-src 'nonce-{style}'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )
    document = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Wanreel</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f'<style nonce="{style}">{_STYLE}</style></head><body><main><div class="mark" aria-hidden="true"></div>'
        f"<h1>{title}</h1><p>{line}</p>{content}</main></body></html>"
    )
    # Without a referrer browsers call the origin of a form "null", which the guard takes for a foreign one.
    own = {"content-security-policy": policy, "referrer-policy": "same-origin"}
    return HTMLResponse(document, status, own | (headers or {}))


_STYLE = """
:root{--bg:#f5f5f8;--card:#fff;--text:#1b1c24;--soft:#5b5d6b;--line:#d9dae3;--accent:#5b3fd6;--on:#fff;--bad:#b3261e}
@media (prefers-color-scheme:dark){:root{--bg:#0f1016;--card:#181a23;--text:#ececf3;--soft:#a3a5b5;--line:#343747;
--accent:#a996ff;--on:#16121f;--bad:#ff9b92}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:20px;background:var(--bg);color:var(--text);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Noto Sans CJK SC",sans-serif}
main{width:100%;max-width:400px;background:var(--card);border:1px solid var(--line);border-radius:18px;padding:34px 32px;
box-shadow:0 18px 50px -28px rgb(30 20 80/.45)}
.mark{width:42px;height:42px;border-radius:12px;margin-bottom:18px;
background:linear-gradient(135deg,#5b3fd6,#c04bb3 60%,#f08a5d)}
h1{font-size:1.35rem;line-height:1.25;margin:0 0 4px;letter-spacing:-.01em}
p{margin:0 0 20px;color:var(--soft)}
label{display:block;font-weight:600;font-size:.9rem;margin-bottom:6px}
input{width:100%;font:inherit;color:inherit;background:transparent;border:1px solid var(--line);border-radius:10px;
padding:11px 13px}
button{width:100%;margin-top:14px;font:inherit;font-weight:650;border:0;border-radius:10px;padding:12px;cursor:pointer;
background:var(--accent);color:var(--on)}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
.fault{color:var(--bad);margin:10px 0 0;font-size:.92rem}
.hint{font-size:.85rem;margin:20px 0 0}
code{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:.95em}
"""
