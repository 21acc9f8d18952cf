"""S3Storage: files in a bucket of AWS, R2 or any S3 server. Knows nothing of jobs.

A put counts when the server was asked afterwards and has the right bytes: by size and by the checksum it took itself,
or, where its own checksum is none of the file's (encrypted buckets, some gateways), by reading all of it back.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import quote

from wanreel.core.cancel import CancelToken
from wanreel.core.destination import Destination
from wanreel.core.errors import StorageDamaged, StorageRefused
from wanreel.storage.objects import CHUNK, Parcel, damaged_here
from wanreel.storage.pinned import Pins
from wanreel.storage.s3_client import meanings, open_client, status_of

#: Bytes of a part; what is no longer goes in one piece. Every part but the last has this size, as R2 wants it; files of
#: up to 10,000 parts, 160 GB, can be put.
PART = 16 * 1024 * 1024
_SHA256 = "sha256"  # name of our metadata


@dataclass(frozen=True)
class S3Storage:
    """Objects of one bucket. Safe to use from several threads."""

    destination: Destination
    pins: Pins | None = None  #: whom it may call; None for whomever the operator named
    part: int = PART

    @functools.cached_property
    def _client(self) -> Any:
        return open_client(self.destination, self.pins)

    def put(self, key: str, parcel: Parcel, cancel: CancelToken) -> None:
        """Bring the file there, whole or not at all, and look that it is there. Raises Cancelled, OSError."""
        tags = tags_of(parcel, self.part)
        with parcel.path.open("rb") as file, meanings():
            # Who may not list a bucket is answered 403 for what is not there.
            if self._is_there(key, parcel, tags, absent=(403, 404)):
                return
            about = {"ContentType": parcel.media_type, "Metadata": {_SHA256: parcel.sha256}}
            if len(tags) == 1:
                self._client.put_object(Bucket=self._bucket, Key=key, Body=file.read(), **about)
            else:
                self._put_parts(key, file, tags, about, cancel)
            if not self._is_there(key, parcel, tags):
                self.delete(key)
                raise StorageDamaged("The storage has taken other bytes than it was given.")

    def open(self, key: str, *, first: int = 0, last: int | None = None) -> Iterator[bytes]:
        """The object's bytes, or a part of them. Raises StorageRefused where it is not there."""
        part = {} if first == 0 and last is None else {"Range": f"bytes={first}-{'' if last is None else last}"}
        with meanings():
            answer = self._client.get_object(Bucket=self._bucket, Key=key, **part)
        return _chunks(answer)

    def delete(self, key: str) -> None:
        """Forget it. Nothing happens when it is not there."""
        with meanings():
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def url(self, key: str, *, file_name: str = "", media_type: str = "") -> str:
        """Where the object can be fetched without keys. Asks nobody."""
        if public := self.destination.public_address(key):
            return public
        asked = {"Bucket": self._bucket, "Key": key}
        if file_name:
            asked["ResponseContentDisposition"] = f"attachment; filename*=utf-8''{quote(file_name)}"
        if media_type:
            asked["ResponseContentType"] = media_type
        with meanings():
            return self._client.generate_presigned_url(
                "get_object", Params=asked, ExpiresIn=self.destination.presign_seconds
            )

    @property
    def _bucket(self) -> str:
        return self.destination.bucket

    # Looking

    def _is_there(self, key: str, parcel: Parcel, tags: tuple[bytes, ...], absent: tuple[int, ...] = (404,)) -> bool:
        """Whether the object has the file's bytes. `absent` are the answers that mean that there is none."""
        try:
            found = self._client.head_object(Bucket=self._bucket, Key=key)
        except _client_error() as exc:
            if status_of(exc) in absent:
                return False
            raise
        if found["ContentLength"] != parcel.size:
            return False
        if found.get("ETag", "").strip('"') == _etag(tags):
            return True
        return found["Metadata"].get(_SHA256) == parcel.sha256 and self._digest(key) == parcel.sha256

    def _digest(self, key: str) -> str:
        digest = hashlib.sha256()
        for chunk in self.open(key):
            digest.update(chunk)
        return digest.hexdigest()

    # Files of several parts

    def _put_parts(
        self, key: str, file: BinaryIO, tags: tuple[bytes, ...], about: dict[str, Any], cancel: CancelToken
    ) -> None:
        """Nothing is to be seen under the key until the last call; what was put before it stays for the next attempt."""
        upload, kept = self._unfinished(key, tags)
        if upload is None:
            upload = self._client.create_multipart_upload(Bucket=self._bucket, Key=key, **about)["UploadId"]
        named = {"Bucket": self._bucket, "Key": key, "UploadId": upload}
        parts: list[dict[str, Any]] = []
        for number in range(1, len(tags) + 1):
            cancel.check()
            given = kept.get(number)
            if given is None:
                file.seek((number - 1) * self.part)
                given = self._client.upload_part(**named, PartNumber=number, Body=file.read(self.part))["ETag"]
            parts.append({"PartNumber": number, "ETag": given})
        self._client.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})

    def _unfinished(self, key: str, tags: tuple[bytes, ...]) -> tuple[str | None, dict[int, str]]:
        """What an earlier attempt left: its id, and the tags of its parts that are right."""
        try:
            listed = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=key).get("Uploads", [])
            mine = [upload["UploadId"] for upload in listed if upload["Key"] == key]
            if not mine:
                return None, {}
            pages = self._client.get_paginator("list_parts").paginate(Bucket=self._bucket, Key=key, UploadId=mine[-1])
            there = {part["PartNumber"]: part["ETag"] for page in pages for part in page.get("Parts", [])}
        except _client_error() as exc:
            # Looking takes leave that putting does not: without it an upload begins anew.
            if status_of(exc) in (403, 404, 405, 501):
                return None, {}
            raise
        right = dict(enumerate((tag.hex() for tag in tags), 1))
        return mine[-1], {number: tag for number, tag in there.items() if tag.strip('"') == right.get(number)}


def tags_of(parcel: Parcel, part: int) -> tuple[bytes, ...]:
    """The MD5 of each part, by which S3 servers name what they have. Raises StorageRefused where the file has changed."""
    whole = hashlib.sha256()
    try:
        with parcel.path.open("rb") as file:
            sizes = [min(part, parcel.size - start) for start in range(0, max(parcel.size, 1), part)]
            tags = tuple(_read_part(file, size, whole.update) for size in sizes)
            whole.update(file.read(1))  # a file that has grown is another one
    except FileNotFoundError as exc:
        raise StorageRefused(f"{parcel.path.name} is no longer here.") from exc
    if whole.hexdigest() != parcel.sha256:
        raise damaged_here(parcel)
    return tags


def _read_part(file: BinaryIO, size: int, see: Callable[[bytes], None]) -> bytes:
    """The part's MD5. `see` is shown its bytes too."""
    tag = hashlib.md5(usedforsecurity=False)
    while size > 0 and (chunk := file.read(min(CHUNK, size))):
        see(chunk)
        tag.update(chunk)
        size -= len(chunk)
    return tag.digest()


def _etag(tags: tuple[bytes, ...]) -> str:
    """What S3 calls an object: its MD5, or for one of several parts the MD5 of theirs and how many."""
    if len(tags) == 1:
        return tags[0].hex()
    return f"{hashlib.md5(b''.join(tags), usedforsecurity=False).hexdigest()}-{len(tags)}"


def _client_error() -> type[Exception]:
    from botocore.exceptions import ClientError

    return ClientError


def _chunks(answer: dict[str, Any]) -> Iterator[bytes]:
    """The answer's bytes, all that it announced. Raises StorageUnavailable where they end early."""
    with meanings(), contextlib.closing(answer["Body"]) as body:
        yield from body.iter_chunks(CHUNK)
