"""Downloads into the cache: streamed, checked, and moved into place whole.

A download is two files under `<cache>/downloads`: its bytes, named by their SHA-256, and a record named by
the URL's, that says which bytes belong to it. Bytes are moved into place before their record is, both
atomically; so a process that is cut off, or two that fetch the same URL at once, leave nothing behind that a
later run would wrongly trust. No token, cookie or netrc entry is sent; a name and password written in the URL
itself go to its own host only. Where a server sends us on, it is looked where to: to http(s) alone, not from
https to http, and not from the world into the network that this machine is in.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from triggerctl import disk
from triggerctl.config.paths import shown_url
from triggerctl.data.decoding import CutOffError, EncodedError, decoded, is_plain
from triggerctl.data.progress import Progress
from triggerctl.data.redirects import check_redirect
from triggerctl.errors import InputError
from triggerctl.experiment.atomic import disk_errors, make_folder, write_json_atomic
from triggerctl.experiment.cache import cache_root, mark_used, trim_cache

_RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_HOPELESS = (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects, EncodedError)
_ABANDONED_AFTER_SECONDS = 24 * 3600
_MOST_REDIRECTS = 5


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """What a download may cost. Times in seconds; `backoff` is the wait before the second attempt and doubles
    with each further one. A server that has sent less than `slowest` bytes a second, `patience` seconds after
    it began, is given up."""

    max_bytes: int = 2 * 1024**3
    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    attempts: int = 4
    backoff: float = 0.5
    slowest: float = 1000.0
    patience: float = 60.0


DEFAULT_LIMITS = DownloadLimits()


class _SlowError(Exception):
    """The server sends, and so little that it would never end."""


@dataclass(slots=True)
class _Part:
    """What has come so far of a file, over all attempts; `tag` is what the server calls this very content,
    None where it has no name for it."""

    path: Path
    tag: str | None = None
    done: int = 0


def download(
    url: str,
    *,
    progress: Progress | None = None,
    key: str = "dataset_url",
    limits: DownloadLimits = DEFAULT_LIMITS,
    note: Callable[[str], object] = lambda text: None,
) -> Path:
    """The file behind an http(s) URL, from the cache where its bytes still have the sum recorded.

    progress: called with (bytes so far, bytes in all or None).
    key:      the configuration key that named the URL, for errors.
    note:     is told where it is not the file that it was when it was last fetched.
    Raises InputError when it can't be had: no network, an error status, too large, cut off again and again;
    as `disk_errors` when the cache can't be written.
    """
    folder = cache_root() / "downloads"
    record = _record_path(folder, url)
    before = _recorded(record)
    cached = _cached(folder, before)
    if cached is not None:
        mark_used(record)
        mark_used(cached)
        return cached
    make_folder(folder)
    _remove_abandoned(folder)
    with disk_errors(folder):
        path, size = _fetch_with_retries(url, folder, progress, key, limits)
        write_json_atomic(record, {"url": shown_url(url), "sha256": path.name, "bytes": size})
    if before not in (None, path.name):
        note(
            f"{shown_url(url)} is not the file that it was: its SHA-256 is {path.name[:12]}… now, and was "
            f"{str(before)[:12]}… when it was last fetched"
        )
    trim_cache()
    return path


def forget(url: str) -> None:
    """Drop what the cache knows of a URL, so that it is fetched anew next time."""
    disk.remove(_record_path(cache_root() / "downloads", url))


def _record_path(folder: Path, url: str) -> Path:
    return folder / f"{hashlib.sha256(url.encode()).hexdigest()}.json"


def _recorded(record: Path) -> str | None:
    """The sum of the file that a URL gave; None where there is no record, or none that we wrote."""
    try:
        known = str(json.loads(disk.read_bytes(record))["sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return known if re.fullmatch("[0-9a-f]{64}", known) else None


def _cached(folder: Path, known: str | None) -> Path | None:
    """The bytes with that sum, if they are there and unchanged."""
    if known is None:
        return None
    path = folder / known
    try:
        with disk.open_to_read(path) as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == known
    except OSError:
        return None
    return path if whole else None


def _fetch_with_retries(
    url: str, folder: Path, progress: Progress | None, key: str, limits: DownloadLimits
) -> tuple[Path, int]:
    # httpx logs whole URLs, and a query may hold a token.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    why = ""
    with _part_file(folder) as part:
        for attempt in range(limits.attempts):
            if attempt:
                time.sleep(limits.backoff * 2 ** (attempt - 1))
            try:
                return _fetch(url, part, progress, key, limits)
            except httpx.HTTPStatusError as error:
                status = error.response.status_code
                why = f"the server answers {status} {error.response.reason_phrase}".rstrip()
                if status not in _RETRIED_STATUS:
                    break
            except (*_HOPELESS, _SlowError) as error:
                why = str(error)
                break
            except httpx.TransportError as error:
                why = _reason(error)
            except CutOffError as error:
                why = str(error)
    raise InputError(
        f"the data set can't be downloaded: {shown_url(url)}",
        where=key,
        why=why,
        mend="check the address and the network, or download it elsewhere and give the file's path",
    )


def _fetch(
    url: str, part: _Part, progress: Progress | None, key: str, limits: DownloadLimits
) -> tuple[Path, int]:
    """(where the bytes are, how many) after one attempt, which goes on where the last one was cut off if the
    server still has the same file."""
    timeout = httpx.Timeout(limits.read_timeout, connect=limits.connect_timeout)
    # Without compression the length announced is the length received, and progress is true.
    headers = {"Accept-Encoding": "identity", "User-Agent": "triggerctl"}
    if part.tag is not None and part.done:
        headers |= {"Range": f"bytes={part.done}-", "If-Range": part.tag}
    with httpx.Client(timeout=timeout, headers=headers) as client, _answer(client, url, key) as response:
        response.raise_for_status()
        if not _goes_on(response, part.done):
            part.done = 0
        part.tag = _tag(response)
        announced = response.headers.get("Content-Length", "")
        total = part.done + int(announced) if announced.isdecimal() else None
        _check_size(total or 0, url, key, limits)
        began, before = time.monotonic(), part.done
        with disk.open_to_append(part.path) as file:
            file.truncate(part.done)
            for chunk in decoded(response):
                _check_size(part.done + len(chunk), url, key, limits)
                disk.append(file, part.path, chunk)
                part.done += len(chunk)
                if progress is not None:
                    progress(part.done, total)
                _check_speed(part.done - before, time.monotonic() - began, limits)
            disk.sync_open(file, part.path)
        if total is not None and response.num_bytes_downloaded != total - before:
            raise CutOffError(f"{before + response.num_bytes_downloaded} of {total} bytes came")
    with disk.open_to_read(part.path) as whole:
        path = part.path.with_name(hashlib.file_digest(whole, "sha256").hexdigest())
    disk.rename(part.path, path)
    return path, part.done


def _goes_on(response: httpx.Response, done: int) -> bool:
    """Whether what comes now follows the bytes that are here."""
    return response.status_code == 206 and response.headers.get("Content-Range", "").startswith(
        f"bytes {done}-"
    )


def _tag(response: httpx.Response) -> str | None:
    """What is only the same while every byte is. Of a compressed answer a part can't be told by its place."""
    tag = response.headers.get("ETag")
    return tag if tag is not None and tag.startswith('"') and is_plain(response) else None


@contextlib.contextmanager
def _answer(client: httpx.Client, url: str, key: str) -> Iterator[httpx.Response]:
    """The answer to a request, after having looked at each place that a server sends us on to.

    Raises InputError where we don't go there."""
    request = client.build_request("GET", url)
    for _ in range(_MOST_REDIRECTS + 1):
        response = client.send(request, stream=True)
        try:
            if response.next_request is None:
                yield response
                return
            check_redirect(request.url, response.next_request.url, said=shown_url(url), key=key)
            request = response.next_request
        finally:
            response.close()
    raise httpx.TooManyRedirects(f"more than {_MOST_REDIRECTS} redirects", request=request)


def _check_speed(done: int, seconds: float, limits: DownloadLimits) -> None:
    if seconds > limits.patience and done < limits.slowest * seconds:
        raise _SlowError(f"the server is too slow: {done} bytes came in {seconds:.0f} s")


def _check_size(size: int, url: str, key: str, limits: DownloadLimits) -> None:
    if size > limits.max_bytes:
        raise InputError(
            f"the data set is too large: {shown_url(url)}",
            where=key,
            why=f"downloads end at {limits.max_bytes / 1e6:,.0f} MB",
            mend="download it yourself and give the file's path",
        )


@contextlib.contextmanager
def _part_file(folder: Path) -> Iterator[_Part]:
    """A file of our own to fill; whatever is left of it in the end is removed."""
    part = _Part(folder / f"{secrets.token_hex(8)}.part")
    try:
        yield part
    finally:
        disk.remove(part.path)


def _remove_abandoned(folder: Path) -> None:
    """Parts of downloads whose process was killed. A day old: a slow one still going is left alone."""
    for part in folder.glob("*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _ABANDONED_AFTER_SECONDS:
                disk.remove(part)


def _reason(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return "the server can't be reached in time"
    if isinstance(error, httpx.TimeoutException):
        return "the server stopped answering"
    if isinstance(error, httpx.ConnectError):
        return f"no connection to the server ({error})"
    return f"the connection broke off ({error})"
