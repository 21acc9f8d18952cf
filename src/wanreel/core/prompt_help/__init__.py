"""Prompt help: words that make a prompt clearer, said beside the original and never in its place. Pure; no model.

`enhance` works by rules alone, in English and Chinese, and is idempotent. `expand` draws wildcards by a seed.
"""

from wanreel.core.prompt_help.enhance import Change, Enhancement, Wanted, enhance
from wanreel.core.prompt_help.templates import TEMPLATES, Template, filled
from wanreel.core.prompt_help.tokens import Tokens, estimated_tokens
from wanreel.core.prompt_help.wildcards import expand, has_wildcards

__all__ = [
    "TEMPLATES",
    "Change",
    "Enhancement",
    "Template",
    "Tokens",
    "Wanted",
    "enhance",
    "estimated_tokens",
    "expand",
    "filled",
    "has_wildcards",
]
