"""Downloads into the cache: streamed, checked, and moved into place whole.

A download is two files under `<cache>/downloads`: its bytes, named by their SHA-256, and a record named by
the URL's, that says which bytes belong to it. Bytes are moved into place before their record is, both
atomically; so a process that is cut off, or two that fetch the same URL at once, leave nothing behind that a
later run would wrongly trust. No token, cookie or netrc entry is sent; a name and password written in the URL
itself go to its own host only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from triggerctl.data.progress import Progress
from triggerctl.errors import InputError
from triggerctl.experiment.atomic import disk_errors, make_folder, write_json_atomic
from triggerctl.experiment.cache import cache_root, mark_used, trim_cache

_RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_HOPELESS = (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.DecodingError)
_ABANDONED_AFTER_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """What a download may cost. Times in seconds; `backoff` is the wait before the second attempt and doubles
    with each further one."""

    max_bytes: int = 2 * 1024**3
    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    attempts: int = 4
    backoff: float = 0.5


DEFAULT_LIMITS = DownloadLimits()


class _CutOffError(Exception):
    """Fewer bytes came than were announced."""


def download(
    url: str,
    *,
    progress: Progress | None = None,
    key: str = "dataset_url",
    limits: DownloadLimits = DEFAULT_LIMITS,
) -> Path:
    """The file behind an http(s) URL, from the cache where its bytes still have the sum recorded.

    progress: called with (bytes so far, bytes in all or None).
    key:      the configuration key that named the URL, for errors.
    Raises InputError when it can't be had: no network, an error status, too large, cut off again and again;
    as `disk_errors` when the cache can't be written.
    """
    folder = cache_root() / "downloads"
    record = _record_path(folder, url)
    cached = _cached(folder, record)
    if cached is not None:
        mark_used(record)
        mark_used(cached)
        return cached
    make_folder(folder)
    _remove_abandoned(folder)
    with disk_errors(folder):
        path, size = _fetch_with_retries(url, folder, progress, key, limits)
        write_json_atomic(record, {"url": shown_url(url), "sha256": path.name, "bytes": size})
    trim_cache()
    return path


def forget(url: str) -> None:
    """Drop what the cache knows of a URL, so that it is fetched anew next time."""
    _record_path(cache_root() / "downloads", url).unlink(missing_ok=True)


def shown_url(url: str) -> str:
    """The URL without what may be secret: name and password, query, fragment."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" + ("?…" if parts.query else "")


def _record_path(folder: Path, url: str) -> Path:
    return folder / f"{hashlib.sha256(url.encode()).hexdigest()}.json"


def _cached(folder: Path, record: Path) -> Path | None:
    """The bytes that the record names, if they are there and unchanged."""
    try:
        known = json.loads(record.read_text("utf-8"))
        path = folder / str(known["sha256"])
        with path.open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == path.name
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no record, or none that we wrote: as good as not cached
    return path if whole else None


def _fetch_with_retries(
    url: str, folder: Path, progress: Progress | None, key: str, limits: DownloadLimits
) -> tuple[Path, int]:
    # httpx logs whole URLs, and a query may hold a token.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    why = ""
    for attempt in range(limits.attempts):
        if attempt:
            time.sleep(limits.backoff * 2 ** (attempt - 1))
        try:
            return _fetch(url, folder, progress, key, limits)
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            why = f"the server answers {status} {error.response.reason_phrase}".rstrip()
            if status not in _RETRIED_STATUS:
                break
        except _HOPELESS as error:
            why = str(error)
            break
        except httpx.TransportError as error:
            why = _reason(error)
        except _CutOffError as error:
            why = str(error)
    raise InputError(
        f"the data set can't be downloaded: {shown_url(url)}",
        where=key,
        why=why,
        mend="check the address and the network, or download it elsewhere and give the file's path",
    )


def _fetch(
    url: str, folder: Path, progress: Progress | None, key: str, limits: DownloadLimits
) -> tuple[Path, int]:
    """(where the bytes are, how many) after one attempt."""
    timeout = httpx.Timeout(limits.read_timeout, connect=limits.connect_timeout)
    # Without compression the length announced is the length received, and progress is true.
    headers = {"Accept-Encoding": "identity", "User-Agent": "triggerctl"}
    with (
        httpx.Client(timeout=timeout, headers=headers, follow_redirects=True, max_redirects=5) as client,
        client.stream("GET", url) as response,
    ):
        response.raise_for_status()
        if any(r.url.scheme == "https" for r in response.history) and response.url.scheme != "https":
            raise InputError(
                f"the data set's address leads from https to http: {shown_url(url)}",
                where=key,
                why="what comes over http may have been changed on the way",
                mend="give the final address, if you trust it",
            )
        announced = response.headers.get("Content-Length", "")
        total = int(announced) if announced.isdigit() else None
        _check_size(total or 0, url, key, limits)
        digest = hashlib.sha256()
        done = 0
        with _part_file(folder) as part:
            with part.open("wb") as file:
                for chunk in response.iter_bytes(1024 * 256):
                    done += len(chunk)
                    _check_size(done, url, key, limits)
                    digest.update(chunk)
                    file.write(chunk)
                    if progress is not None:
                        progress(done, total)
                file.flush()
                os.fsync(file.fileno())
            if total is not None and response.num_bytes_downloaded != total:
                raise _CutOffError(f"{response.num_bytes_downloaded} of {total} bytes came")
            path = folder / digest.hexdigest()
            part.replace(path)
    return path, done


def _check_size(size: int, url: str, key: str, limits: DownloadLimits) -> None:
    if size > limits.max_bytes:
        raise InputError(
            f"the data set is too large: {shown_url(url)}",
            where=key,
            why=f"downloads end at {limits.max_bytes / 1e6:,.0f} MB",
            mend="download it yourself and give the file's path",
        )


@contextlib.contextmanager
def _part_file(folder: Path) -> Iterator[Path]:
    """A file of our own to fill; whatever is left of it in the end is removed."""
    handle, name = tempfile.mkstemp(dir=folder, suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    """Parts of downloads whose process was killed. A day old: a slow one still going is left alone."""
    for part in folder.glob("*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _ABANDONED_AFTER_SECONDS:
                part.unlink()


def _reason(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return "the server can't be reached in time"
    if isinstance(error, httpx.TimeoutException):
        return "the server stopped answering"
    if isinstance(error, httpx.ConnectError):
        return f"no connection to the server ({error})"
    return f"the connection broke off ({error})"
