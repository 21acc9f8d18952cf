"""Pictures of the page's screens with real results, for the docs and to look at.

    python tests/frontends/ui/take_pictures.py FOLDER [--screens timeline,sweep,improve,library]

Makes a storyboard and a sweep with the demo model in a data directory of its own, opens the page in Chromium, and saves every
screen in light and dark at 1440 and 390 px as FOLDER/NAME-WIDTH-SCHEME.png. It uses what the tests of the page use.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[2]))

from playwright.sync_api import Page

from frontends.ui.shelves import Shop, open_browser, open_shop, visit
from wanreel.core.storyboard import parse_storyboard
from wanreel.core.sweep import parse_sweep
from wanreel.service.storyboards import Storyboards
from wanreel.service.sweeps import Sweeps
from wanreel.wiring import build_worker

SHARED = {"model": "demo", "width": 160, "height": 96, "num_frames": 17, "steps": 12}
SCENES = (
    {"prompt": "a red circle moves right over a blue background", "seed": 7},
    {"prompt": "the circle grows", "seed": 3},
    {"prompt": "a green star spins over a yellow background", "start": "text", "seed": 5},
    {"prompt": "the star moves up", "seed": 11, "transition": "crossfade", "transition_frames": 4},
)
SIZES = ((1440, 900), (390, 844))
SCREENS = ("timeline", "sweep", "improve", "library")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--screens", default=",".join(SCREENS))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch, open_shop(Path(scratch) / "data") as shop, open_browser() as browser:
        fill(shop)
        for (width, height), scheme in itertools.product(SIZES, ("light", "dark")):
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme=scheme,  # type: ignore[arg-type]
                reduced_motion="reduce",
                locale="en-GB",
            )
            page = context.new_page()
            for screen in options.screens.split(","):
                take(page, shop, screen, options.folder / f"{screen}-{width}-{scheme}.png")
            context.close()
    return 0


def fill(shop: Shop) -> None:
    """A film, a sweep, single videos and pictures."""
    Storyboards(shop.service).create(
        parse_storyboard({**SHARED, "title": "Shapes", "colour_match": 0.5, "scenes": list(SCENES)})
    )
    asked = {**SHARED, "prompt": "a red circle moves right over a blue background", "title": "Seeds and guidance"}
    Sweeps(shop.service).create(parse_sweep({**asked, "axes": {"guidance": ["1:1", "3:3"], "seed": [1, 2, 3]}}))
    build_worker(shop.runtime).run(once=True)
    shop.draw("a fox in the snow", 3)
    shop.draw("a hare")


def take(page: Page, shop: Shop, screen: str, path: Path) -> None:
    """One screen as somebody finds it who has been at work."""
    visit(page, shop, "create" if screen == "improve" else screen)
    if screen == "timeline":
        page.locator("#t-picker option").nth(1).wait_for(state="attached")
        page.locator("#t-picker").select_option(index=1)
        page.locator(".t-thumb :is(img, video)").nth(3).wait_for()
    elif screen == "sweep":
        page.locator(".sw-recent a, .sw-recent button, .sw-grid").first.wait_for()
        if not page.locator(".sw-grid").count():
            page.locator(".sw-recent").locator("a, button").first.click()
        page.locator(".sw-grid img").first.wait_for()
    elif screen == "improve":
        page.locator("#knob-prompt").fill("a red fox in the snow, static camera, camera pans left")
        page.locator("#improve").click()
        page.locator("#improve-panel .improve-text").first.wait_for()
    page.wait_for_timeout(1500)
    page.screenshot(path=path)
    page.screenshot(path=path.with_name(f"{path.stem}-whole.png"), full_page=True)
    print(path, flush=True)


if __name__ == "__main__":
    sys.exit(main())
