"""The tables of config.toml: settings that belong together. Which of their values are in force is settings.py's."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from wanreel.core.destination import LONGEST_PRESIGNED, Credentials, Destination, is_key


class UserModel(BaseModel):
    """A row that the operator adds: a shipped row with another folder or other facts."""

    model_config = ConfigDict(extra="allow")

    base: str = Field(description="The shipped row whose architecture it has.")
    folder: Path | None = Field(default=None, description="Where its weights lie, in Diffusers layout.")


class HttpSettings(BaseModel):
    """How `wanreel serve` is reached. In the environment as WANREEL_HTTP__NAME, in config.toml under [http]."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on. Any but this machine's own needs a key.")
    port: int = Field(default=7860, ge=0, le=65535, description="0 takes a free one.")
    public_url: str = Field(default="", description="Where users find it behind a proxy, as https://name/path.")
    allowed_hosts: tuple[str, ...] = Field(default=(), description="Further names it may be called by.")
    trusted_proxies: tuple[str, ...] = Field(default=(), description="Proxies whose X-Forwarded headers are believed.")
    api_key: SecretStr | None = Field(default=None, min_length=16, description="A key beside those of `wanreel keys`.")
    submits_per_minute: int | None = Field(default=None, ge=1, description="Of each owner whose key does not say.")


class OutboundSettings(BaseModel):
    """What the server may call by itself. In the environment as WANREEL_OUTBOUND__NAME, in config.toml under [outbound]."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    pictures: bool = Field(default=False, description="Requests may name pictures by https address.")
    webhooks: bool = Field(default=False, description="Requests may name an https address to be told of their end.")
    allow_http: bool = Field(default=False, description="Addresses with http are called too, not only https.")
    private_origins: tuple[str, ...] = Field(
        default=(), description="Servers that may be called though they are not public, as http://10.0.0.5:8080."
    )
    uploads: bool = Field(default=False, description="Requests may bring S3 storage and keys of their own.")
    upload_endpoints: tuple[str, ...] = Field(
        default=(),
        description="S3 servers they may name beside Cloudflare R2's, as https://s3.eu-west-1.amazonaws.com.",
    )
    upload_prefix: str = Field(
        default="wan-i2v/results", max_length=512, description="What the keys of their objects begin with."
    )
    webhook_url: str = Field(default="", max_length=2048, description="Told of every job that names nobody itself.")
    webhook_secret: SecretStr | None = Field(
        default=None, min_length=32, description="What signing secrets are made from; kept in the data directory else."
    )


class PromptHelpSettings(BaseModel):
    """A language model that helps with prompts. In the environment as WANREEL_PROMPT_HELP__NAME, in config.toml under
    [prompt_help]."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: str = Field(
        default="",
        max_length=2048,
        description="Where it is served, OpenAI-compatible, as http://127.0.0.1:11434/v1. Empty: rules alone.",
    )
    model: str = Field(default="", max_length=200, description="Its name there.")
    folder: Path | None = Field(
        default=None, description="In the place of url: a folder with a Transformers chat model in safetensors."
    )
    device: str = Field(default="cpu", description="Where the model of that folder runs: cpu, cuda:0, …")
    key: SecretStr | None = Field(default=None, description="The key it is asked with.")
    sees: bool = Field(default=False, description="It takes pictures: the first frame is shown to it.")
    seconds: float = Field(default=30.0, ge=1, le=300, description="How long its answer is waited for.")


class RemoteSettings(BaseModel):
    """The server that `wanreel --server` asks. In the environment as WANREEL_REMOTE__NAME, in config.toml under [remote]."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    api_key: SecretStr | None = Field(default=None, description="The key it is asked with.")
    runpod_url: str = Field(
        default="https://api.runpod.ai/v2", description="Where RunPod's endpoints are, for `--server runpod`."
    )


class RunPodAccount(BaseSettings):
    """What `--server runpod` asks RunPod with, from the environment or from `.env` in the folder it is called in."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", hide_input_in_errors=True)

    api_key: SecretStr | None = Field(default=None, validation_alias="RUNPOD_API_KEY")
    endpoint_id: str = Field(default="", validation_alias="RUNPOD_WAN_I2V_ENDPOINT_ID")


class RunPodSettings(BaseModel):
    """How `wanreel runpod` works. In the environment as WANREEL_RUNPOD__NAME, in config.toml under [runpod]."""

    model_config = ConfigDict(extra="forbid")

    execution_limit: float = Field(
        default=600.0, ge=10.0, description="The endpoint's execution timeout, s: the state is saved 30 s before it."
    )
    inline_mb: float = Field(
        default=10.0, gt=0, description="Largest answer, MB; past it a video is told by its address instead of base64."
    )
    progress_seconds: float = Field(default=2.0, ge=0, description="Between two reports of progress.")
    keep_hours: float = Field(default=24.0, gt=0, description="States and results by job id are kept as long.")


class StorageProfile(BaseModel):
    """A place in S3 storage. In the environment as WANREEL_STORAGE__PROFILE__NAME, in config.toml under [storage.PROFILE]."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    bucket: str = Field(min_length=1, max_length=255, description="The bucket, which must exist.")
    endpoint: str = Field(default="", max_length=2048, description="The server, as https://name:port; empty for AWS.")
    region: str = Field(default="us-east-1", min_length=1, description="Part of every signature; `auto` for R2.")
    prefix: str = Field(default="wanreel", max_length=512, description="What every key begins with.")
    access_key_id: SecretStr | None = Field(
        default=None, description="Without it, the keys that AWS gives its machines."
    )
    secret_access_key: SecretStr | None = Field(default=None, description="Comes with access_key_id.")
    session_token: SecretStr | None = Field(default=None, description="Of keys that are good for a while only.")
    path_style: bool = Field(default=True, description="https://endpoint/bucket/key; else https://bucket.endpoint/key.")
    public_url: str = Field(
        default="", max_length=2048, description="Where anybody can read the bucket; shown as it is."
    )
    presign_seconds: int = Field(
        default=3600, ge=1, le=LONGEST_PRESIGNED, description="For which an address of a download is good."
    )
    downloads: Literal["redirect", "proxy"] = Field(
        default="redirect", description="How a video that lies only there is served: by its address, or passed on."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together")
        if self.endpoint and not self.endpoint.startswith(("https://", "http://")):
            raise ValueError("endpoint begins with https:// or http://")
        if self.prefix != self.prefix.strip("/") or not is_key(self.prefix or "-"):
            raise ValueError("prefix is made of letters, digits, dots, dashes and slashes between them")
        return self

    def destination(self, name: str) -> Destination:
        """The same with its keys in the open, for whoever puts something there."""
        keys = None
        if self.access_key_id is not None and self.secret_access_key is not None:
            token = self.session_token.get_secret_value() if self.session_token else ""
            keys = Credentials(self.access_key_id.get_secret_value(), self.secret_access_key.get_secret_value(), token)
        return Destination(
            bucket=self.bucket,
            credentials=keys,
            name=name,
            endpoint=self.endpoint,
            region=self.region,
            prefix=self.prefix,
            path_style=self.path_style,
            public_url=self.public_url,
            presign_seconds=self.presign_seconds,
            proxied=self.downloads == "proxy",
        )
