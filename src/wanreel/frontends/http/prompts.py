"""/v1/prompts: better prompts, shown beside the ones that were written. Each route only translates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from wanreel.core.knobs import MAX_SEED
from wanreel.core.prompt_help import TEMPLATES, Enhancement
from wanreel.frontends.http import schema
from wanreel.frontends.http.guard import caller_of
from wanreel.frontends.http.house import House
from wanreel.frontends.http.keys import Caller
from wanreel.frontends.http.schema import Wire
from wanreel.frontends.prompt_help import HelpAsked, PromptHelp


class PromptBody(BaseModel):
    """A prompt, or a template, and what help is wanted."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(default="", max_length=8000, examples=["a red fox in the snow"])
    template: str = Field(
        default="", max_length=64, description="A name of GET /v1/prompts/templates, without a prompt."
    )
    variables: dict[str, str] = Field(
        default_factory=dict[str, str], max_length=20, description="Words for ${slots} of template or prompt."
    )
    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="Draws {red|green|blue}.")
    model: str | None = Field(default=None, max_length=200, description="The video model whose tokenizer counts.")
    by: Literal["auto", "rules", "model"] = Field(
        default="auto", description="model: by the operator's language model. auto: by it where there is one."
    )
    mode: Literal["text", "picture"] = Field(default="text", description="picture: a picture is the first frame.")
    image: str | dict[str, Any] | None = Field(
        default=None, description="That picture, for a language model that sees: base64, a data: URL or a file id."
    )
    cinematic: bool = Field(default=True, description="Cinematic vocabulary too.")
    add: bool = Field(default=True, description="False: only what is wrong is cured.")


class PromptChange(Wire):
    kind: Literal["cleaned", "duplicate", "contradiction", "shortened", "added", "written"]
    text: str = Field(description="The words that went or came.")
    reason: str


class PromptHint(Wire):
    code: str = Field(description="negation, contradiction, vace, model_failed, not_seen")
    text: str


class PromptTokens(Wire):
    before: int
    after: int
    limit: int = Field(description="What the model's text encoder reads.")
    exact: bool = Field(description="Counted by the model's own tokenizer; false: estimated.")
    counted_by: str


class PromptEnhancement(Wire):
    """Both prompts. Nothing was replaced: send the one that you want, and the other as original_prompt."""

    object: Literal["prompt.enhancement"] = "prompt.enhancement"
    original: str
    enhanced: str
    changed: bool
    by: Literal["rules", "model"]
    language: Literal["en", "zh"]
    tokens: PromptTokens
    changes: list[PromptChange]
    hints: list[PromptHint]
    styles: list[str]
    looks: list[str]
    vace: list[str]


class PromptTemplate(Wire):
    name: str
    title: str
    text: str
    slots: dict[str, str | None] = Field(description="Each slot's own words; null where some must be given.")


class PromptTemplates(Wire):
    object: Literal["list"] = "list"
    data: list[PromptTemplate]


class PromptRoutes:
    """The routes, over one House. `picture` answers the PNG of a SHA-256."""

    def __init__(self, house: House, help_: PromptHelp, picture: Callable[[str], bytes]) -> None:
        self._house = house
        self._help = help_
        self._picture = picture

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/prompts", tags=["prompts"], responses=schema.ERRORS)
        router.post("/enhance", response_model=PromptEnhancement, summary="Have a prompt improved")(self.enhance)
        router.get("/templates", response_model=PromptTemplates, summary="List prompt templates")(self.templates)
        return router

    async def enhance(self, request: Request, body: PromptBody) -> PromptEnhancement:
        """Answers the prompt and a better one side by side. Nothing is queued or changed."""
        caller = caller_of(request)
        self._house.rates.take(caller)
        return await run_in_threadpool(self._enhanced, caller, body)

    async def templates(self) -> PromptTemplates:
        """Prompts with slots, for POST /v1/prompts/enhance."""
        rows = TEMPLATES.items()
        return PromptTemplates(
            data=[PromptTemplate(name=name, title=it.title, text=it.text, slots=dict(it.slots)) for name, it in rows]
        )

    def _enhanced(self, caller: Caller, body: PromptBody) -> PromptEnhancement:
        png = None
        if body.image:
            png = self._picture(self._house.desk.accept(caller.owner, "image", body.image).sha256)
        asked = HelpAsked(
            prompt=body.prompt,
            template=body.template,
            variables=body.variables,
            seed=body.seed,
            model=body.model,
            by=body.by,
            png=png,
            from_picture=body.mode == "picture",
            cinematic=body.cinematic,
            add=body.add,
        )
        return shown(self._help.enhance(asked))


def shown(found: Enhancement) -> PromptEnhancement:
    """As it is answered."""
    tokens = PromptTokens(
        before=found.tokens_before,
        after=found.tokens_after,
        limit=found.token_limit,
        exact=found.tokens_exact,
        counted_by=found.tokens_by,
    )
    return PromptEnhancement(
        original=found.original,
        enhanced=found.enhanced,
        changed=found.changed,
        by=found.by,
        language=found.language,
        tokens=tokens,
        changes=[PromptChange(kind=it.kind, text=it.text, reason=it.reason) for it in found.changes],
        hints=[PromptHint(code=it.code, text=it.text) for it in found.hints],
        styles=list(found.styles),
        looks=list(found.looks),
        vace=list(found.vace),
    )
