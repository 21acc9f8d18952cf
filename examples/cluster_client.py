"""Asks a cluster, or any Wanreel server, as FastVideo's clients do: one call that answers with the video itself.

python examples/cluster_client.py "a vintage train snakes through the mountains"
python examples/cluster_client.py "the image comes to life" --picture examples/cat.jpg --backend_url http://10.0.0.1:8000
"""

import argparse
import base64
import sys
from pathlib import Path

import httpx

PATIENCE = 900.0  # seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("prompt")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--backend_url", default="http://127.0.0.1:8000")
    parser.add_argument("--key-file", type=Path, help="holds the API key, where one is needed")
    asked = parser.parse_args()
    request = {"prompt": asked.prompt, "num_frames": 17, "randomize_seed": True}
    request["model_type"] = "i2v" if asked.picture else "t2v"
    if asked.picture:
        request["image_data"] = base64.b64encode(asked.picture.read_bytes()).decode()
    headers = {"Authorization": f"Bearer {asked.key_file.read_text().strip()}"} if asked.key_file else {}
    url = f"{asked.backend_url}/generate_video"
    answer = httpx.post(url, json=request, headers=headers, timeout=PATIENCE).json()
    if not answer.get("success"):
        sys.exit(f"No video: {answer.get('error_message') or answer}")
    Path("video.mp4").write_bytes(base64.b64decode(answer["video_data"].partition("base64,")[2]))
    print(f"video.mp4, seed {answer['seed']}, {answer['generation_time']:.1f} s")


if __name__ == "__main__":
    main()
