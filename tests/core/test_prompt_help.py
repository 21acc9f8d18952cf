"""Prompt help by rules: a table of prompts with what becomes of them; idempotent; wildcards and templates."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanreel.core.errors import InvalidRequest
from wanreel.core.prompt_help import TEMPLATES, Tokens, Wanted, enhance, estimated_tokens, expand, filled, has_wildcards
from wanreel.core.prompt_help.answers import Unusable, usable
from wanreel.core.prompt_help.asked import PromptAsked
from wanreel.core.prompt_help.words import CONCEPTS, said


@dataclass(frozen=True)
class Row:
    """What is expected of one prompt. Words separated by bars."""

    prompt: str
    holds: str = ""
    lacks: str = ""
    kinds: str = ""  #: of changes
    hints: str = ""
    picture: bool = False
    cinematic: bool = True
    language: str = "en"
    style: str = ""
    look: str = ""
    vace: str = ""


R = Row
TABLE: tuple[Row, ...] = (
    # What is missing is added.
    R("a red fox in the snow", "medium shot|camera follows|soft natural light|cinematic|sharp focus|fine detail", kinds="added"),
    R("a red fox in the snow", "photographic", "cinematic", cinematic=False, kinds="added"),
    R("A red fox runs.", "A red fox runs. Medium shot, the camera follows", kinds="added"),
    R("A red fox runs. It is cold", "It is cold. Medium shot", kinds="added"),
    R("Wide shot of a valley", "camera follows", "medium shot", kinds="added"),
    R("close-up of a hand", "camera follows", "medium shot", kinds="added"),
    R("aerial view of a city", lacks="medium shot", kinds="added"),
    R("a man, static camera", lacks="camera follows", kinds="added"),
    R("the camera slowly pushes in on a door", lacks="camera follows", kinds="added"),
    R("a street, handheld", lacks="camera follows", kinds="added"),
    R("a dog at night", lacks="soft natural light", kinds="added"),
    R("a dog at sunset", lacks="soft natural light", kinds="added"),
    R("a dog, backlit", lacks="soft natural light", kinds="added"),
    R("neon signs in the rain", lacks="soft natural light", kinds="added"),
    R("a horse in slow motion", lacks="natural motion", kinds="added"),
    R("a wave, dynamic motion", lacks="natural motion", kinds="added"),
    R("a face, shallow depth of field", "fine detail", kinds="added"),
    R("a flower, blurred background, sharp focus", "blurred background|sharp focus", kinds="added"),
    R("a map, highly detailed", lacks="fine detail", kinds="added"),
    R("a photo of a boat, 35 mm film", lacks="cinematic,", kinds="added", style="photographic", look="cinematic"),
    # Styles keep what is theirs.
    R("a girl on a hill, anime style", "rich colours", "photographic|cinematic|sharp focus|depth of field", "added", style="anime"),
    R("a village, watercolour", "rich colours", "photographic|sharp focus", "added", style="watercolour"),
    R("a robot, pixel art", lacks="photographic|sharp focus|cinematic", kinds="added", style="pixel art"),
    R("a bear, claymation", lacks="photographic|cinematic", kinds="added", style="clay"),
    R("a car, 3D animation", lacks="photographic", kinds="added", style="3d"),
    R("a detective, film noir, black and white", lacks="cinematic", kinds="added", look="film noir"),
    R("a city, cyberpunk, neon", lacks="cinematic", kinds="added", look="cyberpunk"),
    R("an old street, vintage, super 8", kinds="added", look="vintage"),
    R("a castle, dreamlike", kinds="added", look="fantasy"),
    # Doubles go.
    R("a cat, a cat", "a cat", "a cat, a cat", "duplicate|added"),
    R("a cat, The Cat, sitting", "a cat, sitting", "The Cat", "duplicate|added"),
    R("a cat, masterpiece, best quality, high quality", "masterpiece", "best quality|high quality", "duplicate|added"),
    R("a cat, 4k, 8k, uhd", "4k", "8k|uhd", "duplicate|added"),
    R("a cat, static camera, fixed shot, tripod shot", "static camera", "fixed shot|tripod", "duplicate|added"),
    R("It rains. It rains. It rains.", "It rains.", "It rains. It rains", "duplicate|added"),
    R("a cat, highly detailed, ultra detailed", "highly detailed", "ultra", "duplicate|added"),
    # Contradictions go where they are nothing but vocabulary; the first stays.
    R("a cat, static camera, camera pans left", "static camera", "pans left", "contradiction|added"),
    R("a cat, zoom in, zoom out", "zoom in", "zoom out", "contradiction|added"),
    R("a cat, pan left, pan right", "pan left", "pan right", "contradiction|added"),
    R("a cat, close-up, wide shot", "close-up", "wide shot", "contradiction|added"),
    R("a cat, low angle, close-up", "low angle|close-up", kinds="added"),
    R("a street, daytime, at night", "daytime", "at night", "contradiction|added"),
    R("a street, black and white, vibrant colors", "black and white", "vibrant", "contradiction|added"),
    R("a girl, anime, photorealistic", "anime", "photorealistic", "contradiction|added", style="anime|photographic"),
    R("a girl, anime, cartoon", "anime|cartoon", kinds="added"),
    R("a run, slow motion, timelapse", "slow motion", "timelapse", "contradiction|added"),
    R("a rose, sharp focus, blurry", "sharp focus", "blurry", "contradiction|added"),
    R("a rose, soft light, harsh light", "soft light", "harsh", "contradiction|added"),
    R("The camera pans left over the bay, then pans right", "then pans right", kinds="added", hints="contradiction"),
    R("time-lapse of a city from day time into night, daytime, then at night", "time-lapse", kinds="added"),
    # Marks of other programs.
    R("(masterpiece:1.2), a cat", "masterpiece, a cat", "(|1.2", "cleaned|added"),
    R("((a cat)), ((sitting))", "a cat, sitting", "((", "cleaned|added"),
    R("a cat <lora:fur:0.8> sits", "a cat sits", "lora", "cleaned|added"),
    R("a cat  ,, sits ,  .", "a cat, sits.", ",,", "added"),
    R("{\"subject\": \"a cat\"}", "{\"subject\": \"a cat\"}", kinds="added"),
    # What the writer should know.
    R("a beach without people", "without people", kinds="added", hints="negation"),
    R("a room, no furniture", "no furniture", kinds="added", hints="negation"),
    R("use the depth map and openpose", kinds="added", hints="vace", vace="depth|pose"),
    R("inpaint the masked area", kinds="added", hints="vace", vace="inpainting"),
    R("outpaint to the left, reference image", kinds="added", hints="vace", vace="reference|outpainting"),
    # From a picture, only what moves.
    R("she smiles", "natural motion|camera stays still", "light|medium shot|cinematic", "added", picture=True),
    R("she smiles, zoom in", "natural motion", "stays still", "added", picture=True),
    R("Subtle breathing, static camera.", "Subtle breathing, static camera.", picture=True),
    # Chinese.
    R("一只狐狸在雪地里奔跑", "中景|镜头平稳跟随|柔和的自然光|电影感|画面清晰|细节丰富", kinds="added", language="zh"),
    R("一只狐狸，固定镜头，镜头左移", "固定镜头", "镜头左移", "contradiction|added", language="zh"),
    R("一只猫，一只猫，睡觉", "一只猫，睡觉", "一只猫，一只猫", "duplicate|added", language="zh"),
    R("城市夜晚，霓虹灯，赛博朋克", lacks="自然光|电影感", kinds="added", language="zh", look="cyberpunk"),
    R("女孩，动漫，写实", "动漫", "写实", "contradiction|added", language="zh", style="anime|photographic"),
    R("她微笑。", "她微笑。动作自然，镜头保持不动。", kinds="added", language="zh", picture=True),
    R("水墨山水，没有人", "水墨山水", "写实", "added", hints="negation", language="zh", style="ink"),
    R("a fox 狐狸", "a fox 狐狸", kinds="added"),
    R("  ", "", kinds=""),
)  # fmt: skip


def parts(text: str) -> list[str]:
    return [part for part in text.split("|") if part]


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 60


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.prompt[:40] or "empty")
def test_what_becomes_of_a_prompt(row: Row) -> None:
    wanted = Wanted(from_picture=row.picture, cinematic=row.cinematic)
    found = enhance(row.prompt, wanted)
    for part in parts(row.holds):
        assert part.casefold() in found.enhanced.casefold(), (part, found.enhanced)
    for part in parts(row.lacks):
        assert part.casefold() not in found.enhanced.casefold(), (part, found.enhanced)
    assert {change.kind for change in found.changes} == set(parts(row.kinds)), found.changes
    assert set(parts(row.hints)) <= {hint.code for hint in found.hints}, found.hints
    assert row.hints or not {"contradiction", "vace"} & {hint.code for hint in found.hints}
    assert found.language == row.language
    assert set(parts(row.style)) <= set(found.styles) and set(parts(row.look)) <= set(found.looks)
    assert found.vace == tuple(parts(row.vace))
    assert found.original == row.prompt and found.by == "rules"
    assert found.tokens_after <= found.token_limit == 512
    assert enhance(found.enhanced, wanted).enhanced == found.enhanced


_WORDS = (
    "a fox", "static camera", "pans left", "zoom in", "zoom out", "night", "daytime", "anime", "film noir", "4k", "8k",
    "masterpiece", "no blur", "blurry", "sharp focus", "特写", "固定镜头", "写实", "(x:1.2)", "{a|b}", "close-up", ",", ".",
    "，", "。", "\n", "!", "...", "3.5", "runs",
)  # fmt: skip


@given(st.lists(st.sampled_from(_WORDS), max_size=14), st.sampled_from([6, 15, 40, 512]), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_help_is_idempotent_and_within_the_limit(words: list[str], limit: int, picture: bool, add: bool) -> None:
    wanted, tokens = Wanted(from_picture=picture, add=add), Tokens(limit=limit)
    found = enhance(" ".join(words), wanted, tokens)
    assert found.tokens_after <= limit
    assert enhance(found.enhanced, wanted, tokens).enhanced == found.enhanced


def test_what_is_too_long_loses_its_end() -> None:
    text = "A fox runs through the snow. " + ", ".join(f"tree number {number}" for number in range(400))
    found = enhance(text)
    assert found.enhanced.startswith("A fox runs through the snow.") and found.tokens_before > 512 >= found.tokens_after
    assert "shortened" in {change.kind for change in found.changes}
    one = enhance("狐" * 900)
    assert one.enhanced.startswith("狐" * 400) and one.tokens_after <= 512


def test_additions_stay_out_where_there_is_no_room() -> None:
    tokens = Tokens(limit=estimated_tokens("a fox runs"))
    assert enhance("a fox runs", tokens=tokens).enhanced == "a fox runs"


def test_a_model_s_own_tokenizer_counts() -> None:
    tokens = Tokens(lambda text: len(text), limit=40, exact=True, source="letters")
    found = enhance("a fox", tokens=tokens)
    assert found.tokens_exact and found.tokens_by == "letters" and len(found.enhanced) <= 40


def test_every_phrase_means_one_thing() -> None:
    phrases = [phrase.casefold() for concept in CONCEPTS for phrase in concept.phrases]
    assert len(phrases) == len(set(phrases))
    assert [it.concept.value for it in said("a blurred background")] == ["shallow"]


# Wildcards


def test_a_seed_draws_the_same() -> None:
    text = "a {red|green|blue} {2::fox|cat} {in {snow|rain}|at night}"
    drawn = [expand(text, seed) for seed in range(40)]
    assert drawn == [expand(text, seed) for seed in range(40)]
    assert len(set(drawn)) > 10 and not any("{" in one or "|" in one for one in drawn)
    assert sum("fox" in one for one in drawn) > sum("cat" in one for one in drawn)
    assert expand("a {red|green|blue} fox", 7) == "a blue fox"  # on any machine


@pytest.mark.parametrize("text", ['{"a": 1}', "{x}", "a | b", "{open", "close}", "{a|b"])
def test_braces_without_a_choice_are_text(text: str) -> None:
    assert not has_wildcards(text) and expand(text, 1) == text


def test_a_backslash_makes_them_plain() -> None:
    assert expand(r"\{a|b\}", 1) == "{a|b}"
    assert expand("{|very} big", 3).strip().endswith("big")
    with pytest.raises(InvalidRequest):
        expand("{0::a|0::b}", 1)
    with pytest.raises(InvalidRequest):
        expand("{a|" * 12 + "b" + "}" * 12, 1)


def test_the_prompt_that_runs_and_the_one_that_was_written() -> None:
    prompt = PromptAsked("a {red|blue} fox", enhance=True).resolved(1)
    assert prompt.original == "a {red|blue} fox" and "{" not in prompt.text and "sharp focus" in prompt.text
    assert [note.field for note in prompt.adjustments] == ["prompt", "prompt"]
    again = PromptAsked(prompt.text, prompt.original, wildcards=False).resolved(2)
    assert (again.text, again.original, again.adjustments) == (prompt.text, prompt.original, ())
    assert PromptAsked("a {b|c}", wildcards=False).resolved(1).text == "a {b|c}"


# Templates


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_are_whole_prompts(name: str) -> None:
    template = TEMPLATES[name]
    text = filled(template.text, {slot: "a fox" for slot, own in template.slots.items() if own is None})
    assert "${" not in text and enhance(text).hints == ()


def test_slots_want_words() -> None:
    with pytest.raises(InvalidRequest) as raised:
        filled(TEMPLATES["portrait"].text, {"colour": "red"})
    assert [problem.field for problem in raised.value.problems] == ["subject", "colour"]
    assert filled("${a:one} and ${b:two}", {"b": "three"}) == "one and three"


# What language models answer


@pytest.mark.parametrize(
    "answer",
    [
        "A red fox leaps through deep snow.",
        '"A red fox leaps through deep snow."',
        "Here is the improved prompt:\nA red fox leaps through deep snow.",
        "```text\nA red fox leaps through deep snow.\n```",
        "<think>Let me see.</think>\n**A red fox leaps through deep snow.**",
        "Sure! Here's your prompt: A red fox leaps\nthrough deep snow.",
    ],
)
def test_a_prompt_is_found_in_an_answer(answer: str) -> None:
    assert usable(answer, "a red fox in the snow", Tokens()) == "A red fox leaps through deep snow."


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty"),
        ("<think>only thoughts</think>", "empty"),
        ("I'm sorry, I can't help with that.", "declines"),
        ("抱歉，我无法完成。", "declines"),
        ('{"prompt": "a fox"}', "prose"),
        ("See https://example.com for a fox in the snow", "prose"),
        ("fox fox", "short"),
        ("a red fox in the snow " * 30, "repeats"),
        ("snow fox " + " ".join(f"word{number}" for number in range(900)), "longer"),
        ("Yesterday stocks fell sharply across European markets.", "something else"),
        ("a red fox \x00 in the snow", "prose"),
    ],
)
def test_nonsense_is_told_from_a_prompt(answer: str, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        usable(answer, "a red fox running through snow", Tokens())
