"""The page as Gradio builds it: one element per screen, and the named endpoints for gradio_client and MCP.

The screens themselves are the modules in static/. They are no Gradio widgets, because those evaluate strings as scripts
wherever anything happens in the browser (`js=`, HTML templates), which the page's Content-Security-Policy forbids, and
because they could neither change their language nor pass the accessibility checks.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
from collections.abc import AsyncGenerator, Generator
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from wanreel.core.importing import giving_way
from wanreel.core.settings import Settings
from wanreel.frontends.ui.calm import Calm
from wanreel.frontends.ui.desk import Desk

_QUEUE_LOOK = 0.05  # seconds between Gradio's looks at its queue
#: In the order of the tabs. Each has a module static/NAME/NAME.js.
SCREENS = ("create", "timeline", "sweep", "queue", "library", "models", "settings")
# Forms of a page without a referrer come with "Origin: null", which the guard takes for a foreign page; other sites are
# told nothing by "same-origin" either.
_HEAD = """
<meta name="referrer" content="same-origin">
<meta name="color-scheme" content="light dark">
<meta name="description" content="Videos from prompts and pictures, on your own machine.">
<link rel="icon" href="studio/static/images/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="studio/static/css/studio.css">
<script src="studio/static/core/early.js"></script>
<script type="module" src="studio/static/app.js"></script>
"""


@contextlib.asynccontextmanager
async def open_page(desk: Desk, settings: Settings) -> AsyncGenerator[ASGIApp]:
    """Gradio's app, running. Importing and building it happens in a thread. Raises ImportError without Gradio."""
    app = await run_in_threadpool(_build, desk, settings, Calm())
    async with app.router.lifespan_context(app):
        yield app


def _build(desk: Desk, settings: Settings, calm: Calm) -> FastAPI:
    """Blocks over seconds: Gradio is large."""
    temporary = settings.data.root / "gradio"
    shutil.rmtree(temporary, ignore_errors=True)  # nothing in it outlives a server
    temporary.mkdir(parents=True, mode=0o700, exist_ok=True)
    # Gradio reads these at import; none of them is a setting of ours.
    os.environ.update(  # noqa: TID251
        GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", GRADIO_TEMP_DIR=str(temporary)
    )
    with giving_way(calm.wait), _no_stubs():
        import gradio as gr

        from wanreel.frontends.ui.endpoints import Endpoints
        from wanreel.frontends.ui.theme import build_theme

    with gr.Blocks(title="Wanreel", analytics_enabled=False, fill_width=True) as blocks:
        gr.Column(elem_id="studio-bar")
        for name in SCREENS:
            gr.Column(elem_id=f"studio-{name}", elem_classes="studio-screen")
        Endpoints(desk).declare()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    options: dict[str, Any] = {
        "allowed_paths": [],
        "blocked_paths": [str(settings.data.root), str(settings.weights_dir), str(settings.results_dir)],
        "show_error": True,  # only gr.Error, whose words are ours
        "max_file_size": "32mb",
        "app_kwargs": {"docs_url": None, "redoc_url": None, "openapi_url": None},
    }
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
        mcp_server=True,
        theme=build_theme(),
        head=_HEAD,
        **options,
    )
    _rest(blocks)
    return app


@contextlib.contextmanager
def _no_stubs() -> Generator[None]:
    """Importing Gradio writes type stubs into its own folder, which takes 2.5 of 5.5 s; classes without a file have none."""
    where = inspect.getfile

    def getfile(of: Any) -> str:
        if getattr(of, "__module__", "").startswith("gradio."):
            raise OSError("No stubs are wanted.")
        return where(of)

    inspect.getfile = getfile
    try:
        yield
    finally:
        inspect.getfile = where


def _rest(blocks: Any) -> None:
    """Gradio looks a thousand times a second whether somebody called an endpoint, which alone is a twentieth of a core."""
    queue = blocks._queue
    queue.sleep_when_free = queue.progress_update_sleep_when_free = _QUEUE_LOOK
