"""Uploads: multipart forms streamed to disk."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from aiohttp import BodyPartReader, web

from bioforge.simulator.errors import ApiError, missing, too_large, wrong_value
from bioforge.simulator.files import LONGEST, MAX_BATCH_FILE, MAX_FILE, PURPOSES, SHORTEST, File, Files
from bioforge.simulator.folder import Folder

_CHUNK = 256 * 1024
_FIELD = 4096
"""Maximum size of a field other than the file, in bytes."""
_REST = 64 * 1024
"""Maximum size of a form without its file, in bytes."""


@dataclass(slots=True)
class _Form:
    fields: dict[str, str]
    content: Path | None = None
    filename: str = ""
    bytes: int = 0
    digest: str = ""


async def receive(request: web.BaseRequest, folder: Folder, files: Files) -> File:
    """Store an upload. Raise `ApiError`, and store nothing, for one that the API refuses."""
    if (request.content_length or 0) > MAX_FILE + _REST:
        raise too_large(MAX_FILE)
    if request.content_type != "multipart/form-data":
        raise ApiError(400, "Could not parse multipart form: expected the content type multipart/form-data.")
    form = _Form({})
    try:
        await _read(request, folder, form)
        keep = _check(form)
        assert form.content is not None
        purpose = form.fields["purpose"]
        file = files.add(form.content, purpose, form.filename, keep=keep, digest=form.digest)
        form.content = None
        return file
    finally:
        if form.content is not None:
            form.content.unlink(missing_ok=True)


async def _read(request: web.BaseRequest, folder: Folder, form: _Form) -> None:
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                raise ApiError(400, "Could not parse multipart form: nested parts are not supported.")
            if part.name == "file":
                form.filename = part.filename or "upload"
                await _store(part, folder, form)
            elif part.name:
                text = await part.read_chunk(_FIELD)
                form.fields[part.name] = text.decode(errors="replace")
                await part.release()
    except ValueError as error:
        raise ApiError(400, f"Could not parse multipart form: {error}") from error


async def _store(part: BodyPartReader, folder: Folder, form: _Form) -> None:
    if form.content is not None:
        raise wrong_value("file", "more than one file.")
    form.content = folder.incoming()
    digest = sha256()
    with form.content.open("wb") as content:
        while chunk := await part.read_chunk(_CHUNK):
            form.bytes += len(chunk)
            if form.bytes > MAX_FILE:
                raise too_large(MAX_FILE)
            digest.update(chunk)
            content.write(chunk)
    form.digest = digest.hexdigest()


def _check(form: _Form) -> float | None:
    """Return the requested expiry in seconds, or None. Raise `ApiError` for missing and invalid fields."""
    purpose = form.fields.get("purpose")
    if not purpose:
        raise missing("purpose")
    if purpose not in PURPOSES:
        choices = ", ".join(f"'{choice}'" for choice in PURPOSES)
        raise wrong_value("purpose", f"value '{purpose}' is not one of {choices}.")
    if form.content is None:
        raise missing("file")
    if purpose == "batch" and not form.filename.endswith(".jsonl"):
        raise ApiError(400, "Invalid file format for Batch API. Must be .jsonl", param="file")
    if purpose == "batch" and form.bytes > MAX_BATCH_FILE:
        message = f"File is too large. A batch file may have {MAX_BATCH_FILE} bytes, this one has {form.bytes}."
        raise ApiError(400, message, param="file")
    anchor, seconds = form.fields.get("expires_after[anchor]"), form.fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    number: object = seconds
    with suppress(TypeError, ValueError):
        number = int(seconds or "")
    return keep_seconds("expires_after", {"anchor": anchor, "seconds": number})


def keep_seconds(name: str, policy: Mapping[str, object]) -> float:
    """Return the seconds of an expiry policy `{"anchor": "created_at", "seconds": …}`; raise `ApiError` if invalid."""
    if policy.get("anchor") is None:
        raise missing(f"{name}.anchor")
    if policy["anchor"] != "created_at":
        raise wrong_value(f"{name}.anchor", f"value '{policy['anchor']}' is not 'created_at'.")
    seconds = policy.get("seconds")
    if seconds is None:
        raise missing(f"{name}.seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not SHORTEST <= seconds <= LONGEST:
        raise wrong_value(f"{name}.seconds", f"expected an integer from {SHORTEST} to {LONGEST}, not {seconds!r}.")
    return seconds
