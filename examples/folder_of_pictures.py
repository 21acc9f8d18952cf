"""Every picture of a folder with one prompt. A bad picture is reported and the rest goes on.

python examples/folder_of_pictures.py ./input_images
"""

import sys
from pathlib import Path

from wanreel import VideoRequest, Wanreel, WanreelError

PROMPT = "the camera gently pans right"


def main(folder: str) -> None:
    with Wanreel() as reel:
        for path in sorted(Path(folder).glob("*.*")):
            try:
                video = reel.generate(VideoRequest(prompt=PROMPT, image=reel.picture(path)))
            except WanreelError as error:
                print(f"{path.name}: {error}", file=sys.stderr)
            else:
                print(f"{path.name} → {video.path}")


if __name__ == "__main__":
    main(sys.argv[1])
