"""Prompt help with a language model: a local server that answers well, late, nonsense or not at all."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import SecretStr

from wanreel.core.errors import InvalidRequest, RemoteError, SettingsError
from wanreel.core.settings import Settings
from wanreel.core.settings_groups import PromptHelpSettings
from wanreel.frontends.cli import main
from wanreel.frontends.prompt_help import HelpAsked, PromptHelp
from wanreel.frontends.prompt_writer import build_writer
from wanreel.wiring import build_runtime

GOOD = "A red fox leaps through deep snow, its breath steaming. Low angle, the camera follows. Morning light."


class Model(ThreadingHTTPServer):
    """A language model that answers what it is told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: Any = GOOD
        self.status = 200
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.late = threading.Event()  # set: answer; clear: wait
        self.late.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        server.keys.append(self.headers.get("Authorization"))
        server.late.wait(10)
        body = server.answer
        if isinstance(body, str):
            body = json.dumps({"choices": [{"message": {"role": "assistant", "content": body}}]}).encode()
        self.send_response(server.status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def model() -> Iterator[Model]:
    server = Model()
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
    thread.start()
    yield server
    server.late.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build_runtime(Settings(data_dir=tmp_path_factory.mktemp("data"), device="cpu"))


def helper(runtime: Any, model: Model, **more: Any) -> PromptHelp:
    settings = PromptHelpSettings(url=model.url, model="tiny-chat", key=SecretStr("sesame"), **more)
    return PromptHelp(runtime, build_writer(settings))


def asked(**more: Any) -> HelpAsked:
    values: dict[str, Any] = {"prompt": "a red fox in the snow", "model": "demo", **more}
    return HelpAsked(**values)


def test_the_model_writes_and_both_texts_are_kept(runtime: Any, model: Model) -> None:
    found = helper(runtime, model).enhance(asked())
    assert (found.original, found.enhanced, found.by) == ("a red fox in the snow", GOOD, "model")
    assert [change.kind for change in found.changes] == ["written"] and found.tokens_exact
    (request,) = model.asked
    assert request["model"] == "tiny-chat" and model.keys == ["Bearer sesame"]
    assert request["messages"][1]["content"] == "a red fox in the snow"
    assert "English" in request["messages"][0]["content"]


def test_chinese_is_answered_in_chinese(runtime: Any, model: Model) -> None:
    model.answer = "一只红狐狸在厚厚的雪地里跳跃，低角度，镜头跟随。"
    found = helper(runtime, model).enhance(asked(prompt="一只狐狸在雪地里"))
    assert found.by == "model" and "Chinese" in model.asked[0]["messages"][0]["content"]


def png() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (1600, 900), "red").save(data, "PNG")
    return data.getvalue()


def test_a_model_that_sees_is_shown_the_picture(runtime: Any, model: Model) -> None:
    helper(runtime, model, sees=True).enhance(asked(png=png()))
    told, shown = model.asked[0]["messages"]
    assert "first frame" in told["content"]
    assert shown["content"][1]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    blind = helper(runtime, model).enhance(asked(png=png()))
    assert isinstance(model.asked[1]["messages"][1]["content"], str)
    assert "not_seen" in {hint.code for hint in blind.hints}


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        ("I'm sorry, I can't do that.", 200, "it declines"),
        ("", 200, "it is empty"),
        (b"<html>", 200, "no chat completion"),
        (b'{"choices": []}', 200, "no chat completion"),
        (b'{"choices": [{"message": {"content": null}}]}', 200, "no text"),
        (GOOD, 500, "answered 500"),
        (GOOD, 302, "answered 302"),
        (b"x" * (2**20 + 1), 200, "can't be reached"),
    ],
    ids=str,
)
def test_where_the_model_fails_the_rules_help_and_say_so(
    runtime: Any, model: Model, answer: Any, status: int, said: str
) -> None:
    model.answer, model.status = answer, status
    found = helper(runtime, model).enhance(asked(by="model"))
    assert found.by == "rules" and "medium shot" in found.enhanced
    assert found.hints[0].code == "model_failed" and said in found.hints[0].text
    assert "127.0.0.1" not in found.hints[0].text and "sesame" not in found.hints[0].text


def test_it_is_not_waited_for_longer_than_the_settings_say(runtime: Any, model: Model) -> None:
    model.late.clear()
    found = helper(runtime, model, seconds=1.0).enhance(asked())
    assert found.by == "rules" and "no answer within 1 s" in found.hints[0].text


def test_a_model_that_is_away_is_said(runtime: Any) -> None:
    writer = build_writer(PromptHelpSettings(url="http://127.0.0.1:9/v1", model="m"))
    assert writer is not None
    with pytest.raises(RemoteError):
        writer.write("do", "a fox")
    assert PromptHelp(runtime, writer).enhance(asked()).hints[0].code == "model_failed"


def test_what_can_not_be_asked(runtime: Any) -> None:
    rules = PromptHelp(runtime)
    for more, field in (
        ({"by": "model"}, "by"),
        ({"prompt": ""}, "prompt"),
        ({"template": "portrait"}, "prompt"),
        ({"prompt": "", "template": "nothing"}, "template"),
        ({"prompt": "", "template": "portrait"}, "subject"),
        ({"model": "nothing"}, "model"),
        ({"prompt": "x" * 4001}, "prompt"),
    ):
        with pytest.raises(InvalidRequest) as raised:
            rules.enhance(asked(**more))
        assert raised.value.problems[0].field == field


def test_templates_and_wildcards_are_drawn(runtime: Any) -> None:
    rules = PromptHelp(runtime)
    made = rules.enhance(asked(prompt="", template="portrait", variables={"subject": "a {man|woman}"}, seed=3))
    assert "{man|woman}" in made.original and "{" not in made.enhanced
    assert made == rules.enhance(asked(prompt="", template="portrait", variables={"subject": "a {man|woman}"}, seed=3))


def test_tokens_are_counted_by_the_model_s_own_tokenizer(runtime: Any) -> None:
    exact = PromptHelp(runtime).enhance(asked())
    assert exact.tokens_exact and exact.tokens_by == "demo's tokenizer"
    estimate = PromptHelp(runtime).enhance(asked(model="ti2v-5b"))
    assert not estimate.tokens_exact and "estimate" in estimate.tokens_by


def chat_model(folder: Path) -> Path:
    """A tiny random one, whose answers are nonsense."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    words = {sign: number for number, sign in enumerate(["<end>", "<unk>", *map(chr, range(32, 127))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", unk_token="<unk>")
    fast.chat_template = "{% for turn in messages %}{{ turn.content }} {% endfor %}"
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_local_chat_model_answers_from_safetensors_alone(tmp_path: Path) -> None:
    from wanreel.core.errors import BrokenWeights
    from wanreel.models.chat import load_chat

    folder = chat_model(tmp_path / "chat")
    chat = load_chat(folder)
    first = chat.answer("do", "a fox", most_tokens=12)
    assert first and first == load_chat(folder).answer("do", "a fox", most_tokens=12)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BrokenWeights):
        load_chat(folder)


def seeing_model(folder: Path) -> Path:
    """A tiny random one that is shown pictures: what an editing model reads with, and a template."""
    from wanreel.core.catalog import Catalog
    from wanreel.models.components import quiet
    from wanreel.models.tiny_edits import build_tiny_edits

    made = build_tiny_edits(Catalog().picture("tiny:qwen-image-edit-2509"))  # type: ignore[arg-type]
    processor = made.processor
    processor.tokenizer.chat_template = "{% for turn in messages %}{{ turn.content }} {% endfor %}"
    with quiet():
        made.modules["text_encoder"].save_pretrained(folder)  # type: ignore[operator]
        processor.tokenizer.save_pretrained(folder)
        processor.image_processor.save_pretrained(folder)
    return folder


def test_a_local_chat_model_that_sees_is_shown_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wanreel.models.chat import load_chat

    chat = load_chat(seeing_model(tmp_path / "seeing"))
    shown: list[dict[str, Any]] = []
    generate = chat.module.generate

    def watched(**read: Any) -> Any:
        shown.append(read)
        return generate(**read)

    monkeypatch.setattr(chat.module, "generate", watched)
    pictures = {colour: io.BytesIO() for colour in ("red", "blue")}
    for colour, data in pictures.items():
        Image.new("RGB", (1600, 900), colour).save(data, "PNG")
    red, blue = (chat.answer("say what you see", "a <|image_pad|> fox", it.getvalue(), 6) for it in pictures.values())
    assert red == chat.answer("say what you see", "a <|image_pad|> fox", pictures["red"].getvalue(), 6)
    place = chat.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    for read in shown:  # as many places as the picture has, though the prompt names one more
        assert int((read["input_ids"] == place).sum()) == int(read["image_grid_thw"].prod()) // 4
    assert not shown[0]["pixel_values"].equal(shown[1]["pixel_values"])
    chat.answer("do", "a fox", None, 6)
    assert "pixel_values" not in shown[-1] and isinstance(blue, str)


@pytest.mark.deep
def test_a_local_model_that_sees_is_asked_with_the_picture_in_its_own_process(runtime: Any, tmp_path: Path) -> None:
    writer = build_writer(PromptHelpSettings(folder=seeing_model(tmp_path / "seeing"), seconds=300))
    assert writer is not None and writer.sees
    found = PromptHelp(runtime, writer).enhance(asked(png=png()))
    assert found.by == "rules" and "can't be used" in found.hints[0].text
    assert "not_seen" not in {hint.code for hint in found.hints}


@pytest.mark.deep
def test_a_local_model_s_nonsense_is_not_taken(runtime: Any, tmp_path: Path) -> None:
    """In its own process, as a server asks it."""
    settings = PromptHelpSettings(folder=chat_model(tmp_path / "chat"), seconds=300)
    found = PromptHelp(runtime, build_writer(settings)).enhance(asked())
    assert found.by == "rules" and "can't be used" in found.hints[0].text and "process" not in found.hints[0].text


def test_a_local_model_that_is_not_there_or_slow_is_said(runtime: Any, tmp_path: Path) -> None:
    writer = build_writer(PromptHelpSettings(folder=tmp_path / "nothing", seconds=1))
    found = PromptHelp(runtime, writer).enhance(asked())
    assert found.hints[0].code == "model_failed" and str(tmp_path) not in found.hints[0].text


@pytest.mark.parametrize("settings", [{"url": "nonsense", "model": "m"}, {"url": "http://127.0.0.1:1/v1"}])
def test_settings_that_can_not_be(settings: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        build_writer(PromptHelpSettings(**settings))  # type: ignore[arg-type]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_the_command(
    capsys: pytest.CaptureFixture[str], model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "300")
    code, out, err = run(capsys, "enhance", "a fox, static camera, pans left")
    assert code == 0 and out == "" and "as written" in err and "contradiction: pans left" in err
    code, out, _ = run(capsys, "enhance", "a {red|blue} fox", "--seed", "2", "--json")
    assert code == 0 and json.loads(out)["original"] == "a {red|blue} fox"
    code, out, err = run(capsys, "enhance", "a fox", "--by", "model")
    assert code == 2 and "no language model" in err
    monkeypatch.setenv("WANREEL_PROMPT_HELP__URL", model.url)
    monkeypatch.setenv("WANREEL_PROMPT_HELP__MODEL", "tiny-chat")
    code, out, _ = run(capsys, "enhance", "a red fox in the snow", "--plain")
    assert (code, out.strip()) == (0, GOOD)
    code, out, _ = run(capsys, "enhance", "--templates")
    assert code == 0
    code, out, err = run(capsys, "generate", "a {red|red} circle", "--enhance", "--dry-run", "--json")
    row = json.loads(out)
    assert row["request"]["original_prompt"] == "a {red|red} circle" and "sharp focus" in row["request"]["prompt"]
    assert [it["field"] for it in row["adjustments"]].count("prompt") == 2
