"""One picture, several prompts: the model is loaded once.

python examples/prompt_list.py photo.jpg
"""

import sys

from wanreel import VideoRequest, Wanreel

PROMPTS = ["the camera pans left", "the camera pans right", "the camera slowly pushes in"]


def main(photo: str) -> None:
    with Wanreel() as reel:
        image = reel.picture(photo)
        for number, prompt in enumerate(PROMPTS):
            # Another seed each time, so that the videos differ in more than their prompt.
            video = reel.generate(VideoRequest(prompt=prompt, image=image, preset="draft", seed=42 + number))
            print(f"Video {number + 1} saved: {video.path}")


if __name__ == "__main__":
    main(sys.argv[1])
