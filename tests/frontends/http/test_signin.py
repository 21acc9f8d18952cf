"""Signing in: a key or a link exchanged for a cookie, once, and what the cookie may."""

from __future__ import annotations

import json
import re

import pytest

from frontends.http.places import Open, Place
from wanreel.core.errors import SettingsError
from wanreel.frontends.http.entrance import Entrance
from wanreel.frontends.http.keys import digest_of
from wanreel.frontends.http.sessions import LIFETIME, LINK_LIFETIME, Links, Sessions
from wanreel.frontends.http.signin import ATTEMPTS, COOKIE


def enter(place: Place, key: str, **more: str) -> int:
    """Status of signing in with a key; 303 is success."""
    return place.client.post("/sign-in", data={"key": key, **more}, follow_redirects=False).status_code


def test_a_key_becomes_a_cookie_that_opens_what_the_key_does(open_place: Open) -> None:
    place = open_place()
    key = place.keys.create("ann", ("read", "submit"))
    answer = place.client.post("/sign-in", data={"key": f" {key}\n"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert key not in cookie
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert "Secure" not in cookie
    assert place.client.get("/v1/videos").status_code == 200  # the client keeps the cookie
    assert place.client.post("/v1/queue/pause", json={}).status_code == 403
    assert place.client.post("/sign-out", follow_redirects=False).status_code == 303
    assert place.client.get("/v1/videos").status_code == 401


def test_behind_https_the_cookie_never_travels_without(open_place: Open) -> None:
    place = open_place(Entrance(public_url="https://films.example/studio"), keys={"first": ("read",)})
    headers = {"Host": "films.example"}
    key = place.keys.create("ann")
    answer = place.client.post("/studio/sign-in", data={"key": key}, headers=headers, follow_redirects=False)
    assert answer.headers["location"] == "/studio/"
    assert {"Secure", "Path=/studio"} <= {part.strip() for part in answer.headers["set-cookie"].split(";")}


def test_a_revoked_key_ends_its_sessions(open_place: Open) -> None:
    place = open_place(keys={"other": ("read",)})
    assert enter(place, place.keys.create("ann")) == 303
    assert place.client.get("/v1/videos").status_code == 200
    place.keys.revoke("ann")
    assert place.client.get("/v1/videos").status_code == 401


def test_guesses_are_refused_and_slowed_down(open_place: Open) -> None:
    place = open_place(keys={"ann": ("read",)})
    answers = [enter(place, f"wanreel_{n}") for n in range(ATTEMPTS + 2)]
    assert answers == [401] * ATTEMPTS + [429, 429]
    page = place.client.post("/sign-in", data={"key": "x"})
    assert "Retry-After" in page.headers and "set-cookie" not in page.headers


def test_the_screen_is_open_and_tells_nothing(open_place: Open) -> None:
    place = open_place(keys={"ann": ("read",)})
    page = place.client.get("/sign-in")
    assert page.status_code == 200 and 'type="password"' in page.text and "ann" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert place.client.get("/", follow_redirects=False).headers["location"] == "/sign-in"
    assert place.client.get("/v1/videos", follow_redirects=False).status_code == 401


def test_pages_of_other_sites_can_not_sign_anybody_in(open_place: Open) -> None:
    place = open_place()
    key = place.keys.create("ann")
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert place.client.post("/sign-in", data={"key": key}, headers=headers).status_code == 403


def test_a_link_works_once_and_only_when_it_is_followed(open_place: Open) -> None:
    place = open_place(keys={"reader": ("read",), "boss": ("admin",)})
    path = place.app.links.create()
    for _ in range(2):  # whoever only looks uses nothing up
        assert place.client.get(path).status_code == 200
    assert place.client.post(path, follow_redirects=False).status_code == 303
    assert place.client.post("/v1/queue/pause", json={}).status_code == 200, "the most powerful key signs in"
    place.client.cookies.clear()
    assert place.client.post(path, follow_redirects=False).status_code == 401
    assert place.client.get("/v1/videos").status_code == 401


def test_links_end_and_need_a_key(open_place: Open) -> None:
    now = 0.0
    place = open_place()
    links = Links(place.keys, lambda: now)
    with pytest.raises(SettingsError, match="no API key"):
        links.create()
    key = place.keys.create("ann")
    early, late = links.create(key), links.create(key)
    token = lambda path: path.rpartition("/")[2]  # noqa: E731
    assert links.redeem(token(early)) == digest_of(key)
    now = LINK_LIFETIME
    assert links.redeem(token(late)) is None


def test_sessions_can_not_be_made_up_and_end(open_place: Open) -> None:
    place = open_place()
    now = 1000.0
    sessions = Sessions(place.folder / "session.secret", lambda: now)
    session = sessions.issue("d" * 64)
    assert sessions.digest_in(session) == "d" * 64
    said, signature = session.removeprefix("s1.").split(".")
    other = Sessions(place.folder / "other.secret", lambda: now).issue("d" * 64)
    flipped = signature[:-2] + ("A" if signature[-2] != "A" else "B") + signature[-1]
    for forged in (other, f"s1.{said}.{flipped}", f"s1.{said}.", "s1.", "s1.é.é", session[:-1], f"x{session}"):
        assert sessions.digest_in(forged) is None, forged
    assert (place.folder / "session.secret").stat().st_mode & 0o077 == 0
    assert Sessions(place.folder / "session.secret", lambda: now).digest_in(session), "it outlives a restart"
    now += LIFETIME
    assert sessions.digest_in(session) is None


def test_a_session_shows_its_owners_videos_alone(open_place: Open) -> None:
    place = open_place()
    mine, yours = place.keys.create("mine"), place.keys.create("yours")
    place.client.post("/v1/videos", json={"prompt": "a secret", "model": "demo"}, headers={"X-API-Key": mine})
    assert enter(place, yours) == 303
    assert place.client.get("/v1/videos").json()["data"] == []
    place.client.cookies.clear()
    assert enter(place, mine) == 303
    assert re.search("a secret", json.dumps(place.client.get("/v1/videos").json()))
    assert COOKIE in place.client.cookies
