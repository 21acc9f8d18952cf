"""Wanreel: the Python front door. Translates arguments into settings and requests; everything else is the runtime's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import GenerationError, SettingsError
from wanreel.core.events import Completed, Event
from wanreel.core.lora import LoraRef
from wanreel.core.picture import PictureRef
from wanreel.core.request import VideoRequest
from wanreel.core.resolved import Resolution
from wanreel.core.settings import load_settings
from wanreel.core.sound import SoundRef
from wanreel.core.video import Video
from wanreel.frontends.copying import copy_video
from wanreel.wiring import build_runtime


class Wanreel:
    """Makes videos in this process, one at a time.

        with Wanreel() as reel:
            video = reel.generate(VideoRequest(prompt="a red circle moves right", image=reel.picture("photo.jpg")))
            print(video.path)

    `data_dir`: where everything is kept; `models_dir`: where weights lie; `gpus`: which GPU to use, by number, an empty
    sequence for none; `memory`: GiB of GPU memory it may use. Anything else is a setting by its own name. Raises
    SettingsError.
    """

    def __init__(
        self,
        *,
        data_dir: str | Path | None = None,
        models_dir: str | Path | None = None,
        gpus: Sequence[int] | None = None,
        memory: float | None = None,
        **settings: Any,
    ) -> None:
        given = {
            "data_dir": data_dir,
            "models_dir": models_dir,
            "memory_gb": memory,
            "device": _device(gpus),
        } | settings
        self.runtime = build_runtime(
            load_settings(**{name: value for name, value in given.items() if value is not None})
        )

    def picture(self, source: str | Path | bytes) -> PictureRef:
        """A picture for a request, from a file or from bytes (PNG, JPEG, WebP). Raises UnreadablePicture."""
        if isinstance(source, bytes):
            return self.runtime.take_picture(source)
        return self.runtime.take_picture_file(Path(source))

    def sound(self, source: str | Path | bytes) -> SoundRef:
        """A soundtrack for a request, from a file or from bytes (WAV, MP3, FLAC, Ogg, M4A). Raises InvalidRequest."""
        if isinstance(source, bytes):
            return self.runtime.take_sound(source)
        return self.runtime.take_sound_file(Path(source))

    def lora(self, file: str | Path) -> LoraRef:
        """A LoRA for a request, from a .safetensors file that is used where it lies. Those on the shelf need no file:
        `LoraRef(NAME)`. Raises BrokenWeights, InvalidRequest."""
        return LoraRef(self.runtime.take_lora_file(Path(file)).name)

    def resolve(self, request: VideoRequest) -> Resolution:
        """What would run, and how it differs from what was asked. Raises InvalidRequest, ModelNotInstalled."""
        return self.runtime.resolve(request)

    def stream(self, request: VideoRequest, cancel: CancelToken | None = None) -> Iterator[Event]:
        """The events of making it, ending with Completed, when it is in the storage that was asked for too.

        Raises InvalidRequest before anything runs.
        """
        return self._stream(self.runtime.resolve(request), cancel or CancelToken())

    def _stream(self, resolution: Resolution, cancel: CancelToken) -> Iterator[Event]:
        for event in self.runtime.generate(resolution, cancel):
            if isinstance(event, Completed) and resolution.storage:
                copy_video(self.runtime.settings, resolution.storage, event.video, cancel)
            yield event

    def generate(self, request: VideoRequest, cancel: CancelToken | None = None) -> Video:
        """Makes the video and returns when it is done.

        Raises InvalidRequest, ModelError, MachineError, GenerationError, and RemoteError where it can't be copied to the
        storage that was asked for.
        """
        for event in self.stream(request, cancel):
            if isinstance(event, Completed):
                return event.video
        raise GenerationError("The generation ended without a result.")

    def load(self, model: str) -> None:
        """Bring a model into memory ahead of the first request."""
        self.runtime.load(model)

    def unload(self) -> None:
        """Free the memory of the model that is loaded."""
        self.runtime.unload()

    def close(self) -> None:
        self.runtime.close()

    def __enter__(self) -> Wanreel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _device(gpus: Sequence[int] | None) -> str | None:
    if gpus is None:
        return None
    if len(gpus) > 1:
        raise SettingsError(f"gpus: {list(gpus)} are several GPUs; one video runs on one.", hint="Name one GPU.")
    return f"cuda:{gpus[0]}" if gpus else "cpu"
