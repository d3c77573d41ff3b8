"""Downloads against a real server that misbehaves.

pytest tests/data/test_download.py
"""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import os
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from triggerctl.config.paths import shown_url
from triggerctl.data import redirects
from triggerctl.data.download import DownloadLimits, download
from triggerctl.data.source import load_rows
from triggerctl.errors import InputError

BODY = json.dumps(
    [{"instruction": f"Say {i}", "input": "", "output": "é" * 50} for i in range(2000)]
).encode()
FAST = DownloadLimits(read_timeout=0.3, connect_timeout=1, backoff=0.01)

Answer = Callable[[BaseHTTPRequestHandler], None]


def send(
    request: BaseHTTPRequestHandler, body: bytes, *, length: int | None = None, status: int = 200
) -> None:
    request.send_response(status)
    request.send_header("Content-Length", str(len(body) if length is None else length))
    request.end_headers()
    request.wfile.write(body)


class Server:
    """Answers one request after the other from `answers`, the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [lambda request: send(request, BODY)]
        self.headers: list[dict[str, str]] = []
        outer = self
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with lock:
                    outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                    answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/rows.json"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def requests(self) -> int:
        return len(self.headers)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def other_server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIGGERCTL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "downloads"


def test_a_download_is_kept_and_not_fetched_again(server: Server, cache: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = download(server.url, progress=lambda done, whole: seen.append((done, whole)))
    assert path.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert download(server.url) == path
    assert server.requests == 1
    assert not list(cache.glob("*.part"))


def test_a_file_taken_from_the_cache_counts_as_used(server: Server, cache: Path) -> None:
    download(server.url)
    for path in cache.iterdir():
        os.utime(path, (1000, 1000))
    download(server.url)
    assert all(path.stat().st_mtime > 1000 for path in cache.iterdir())


def test_rows_come_from_the_url_by_the_same_reader(server: Server, tmp_path: Path) -> None:
    source = load_rows(server.url, folder=tmp_path)
    assert len(source.rows) == 2000
    assert source.origin == server.url


def test_a_cached_file_that_was_changed_is_fetched_again(server: Server) -> None:
    path = download(server.url)
    path.write_bytes(path.read_bytes()[:-1])
    assert download(server.url).read_bytes() == BODY
    assert server.requests == 2


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b'{"sha256": 3}'])
def test_a_record_that_cannot_be_read_is_not_trusted(server: Server, cache: Path, torn: bytes) -> None:
    download(server.url)
    [record] = cache.glob("*.json")
    record.write_bytes(torn)
    assert download(server.url).read_bytes() == BODY
    assert server.requests == 2


def test_a_body_shorter_than_announced_is_tried_again(server: Server) -> None:
    server.answers = [
        lambda request: send(request, BODY[:5000], length=len(BODY)),
        lambda request: send(request, BODY),
    ]
    assert download(server.url, limits=FAST).read_bytes() == BODY
    assert server.requests == 2


def test_a_download_always_cut_off_is_an_error_and_leaves_nothing(server: Server, cache: Path) -> None:
    server.answers = [lambda request: send(request, BODY[:5000], length=len(BODY))]
    with pytest.raises(InputError, match="can't be downloaded"):
        download(server.url, limits=FAST)
    assert server.requests == FAST.attempts
    assert not list(cache.iterdir())


def test_a_cut_off_that_nothing_announced_is_not_trusted_by_the_next_run(
    server: Server, tmp_path: Path
) -> None:
    def without_length(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(BODY[:5000])

    server.answers = [without_length, lambda request: send(request, BODY)]
    with pytest.raises(InputError, match="cut off"):
        load_rows(server.url, folder=tmp_path)
    assert len(load_rows(server.url, folder=tmp_path).rows) == 2000


def test_a_server_that_falls_silent_does_not_hold_us(server: Server) -> None:
    silent = threading.Event()

    def falls_silent(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(BODY)))
        request.end_headers()
        request.wfile.write(BODY[:100])
        request.wfile.flush()
        silent.wait(20)

    server.answers = [falls_silent, lambda request: send(request, BODY)]
    try:
        assert download(server.url, limits=FAST).read_bytes() == BODY
    finally:
        silent.set()


def test_passing_server_errors_are_tried_again(server: Server) -> None:
    server.answers = [
        lambda request: send(request, b"busy", status=500),
        lambda request: send(request, b"slow down", status=429),
        lambda request: send(request, BODY),
    ]
    assert download(server.url, limits=FAST).read_bytes() == BODY
    assert server.requests == 3


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_answer_that_will_not_change_ends_at_once(server: Server, status: int) -> None:
    server.answers = [lambda request: send(request, b"no", status=status)]
    with pytest.raises(InputError, match="can't be downloaded") as caught:
        download(server.url, limits=FAST)
    assert f"answers {status}" in str(caught.value)
    assert server.requests == 1


def test_too_large_is_refused_whether_announced_or_not(server: Server, cache: Path) -> None:
    def without_length(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(BODY)

    limits = DownloadLimits(max_bytes=1000)
    for answer in (without_length, lambda request: send(request, BODY)):
        server.answers = [answer]
        with pytest.raises(InputError, match="too large"):
            download(server.url, limits=limits)
    assert not list(cache.iterdir())


def test_redirects_are_followed_without_name_and_password(server: Server, other_server: Server) -> None:
    server.answers = [redirect(other_server.url)]
    with_password = server.url.replace("http://", "http://me:secret@")
    assert download(with_password).read_bytes() == BODY
    assert "authorization" in server.headers[0]
    assert "authorization" not in other_server.headers[0]


def redirect(location: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", location)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/rows"])
def test_what_is_no_web_address_is_not_followed(server: Server, cache: Path, location: str) -> None:
    server.answers = [redirect(location)]
    with pytest.raises(InputError, match="no web address") as caught:
        download(server.url, limits=FAST)
    assert location.partition(":")[0] in str(caught.value)
    assert not list(cache.iterdir())


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> str:
    """A name for this machine that is taken for one out in the world."""
    whole = redirects._addresses
    monkeypatch.setattr(
        redirects, "_addresses", lambda host: {"9.9.9.9"} if host == "localhost" else whole(host)
    )
    monkeypatch.delenv(redirects.PRIVATE_VARIABLE, raising=False)
    return "localhost"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "10.0.0.7", "169.254.169.254", "0.0.0.0", "2130706433"]
)
def test_the_world_does_not_lead_into_the_own_network(server: Server, world: str, host: str) -> None:
    server.answers = [redirect(f"http://{host}/latest/meta-data")]
    with pytest.raises(InputError, match="into your own network") as caught:
        download(server.url.replace("127.0.0.1", world), limits=FAST)
    assert redirects.PRIVATE_VARIABLE in str(caught.value)
    assert server.requests == 1


def test_with_a_flag_it_does(
    server: Server, other_server: Server, world: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(redirects.PRIVATE_VARIABLE, "1")
    server.answers = [redirect(other_server.url)]
    assert download(server.url.replace("127.0.0.1", world)).read_bytes() == BODY


def test_https_does_not_lead_to_http() -> None:
    with pytest.raises(InputError, match="from https to http"):
        redirects.check_redirect(
            httpx.URL("https://a.example"), httpx.URL("http://a.example"), said="it", key="dataset_url"
        )


def test_a_server_that_trickles_is_given_up(server: Server, cache: Path) -> None:
    ended = threading.Event()

    def trickles(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(BODY)))
        request.end_headers()
        for byte in BODY:
            if ended.wait(0.02):
                return
            request.wfile.write(bytes([byte]))
            request.wfile.flush()

    server.answers = [trickles]
    began = time.monotonic()
    try:
        with pytest.raises(InputError, match="too slow"):
            download(server.url, limits=replace(FAST, patience=0.3))
    finally:
        ended.set()
    assert time.monotonic() - began < 10
    assert server.requests == 1
    assert not list(cache.iterdir())


def encoded(body: bytes, encoding: str) -> Answer:
    """A server that says its bytes are so encoded, though it was asked for plain ones."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Encoding", encoding)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        with contextlib.suppress(OSError):
            request.wfile.write(body)

    return answer


def test_what_unfolds_to_more_than_the_limit_is_refused_before_it_fills_the_memory(
    server: Server, cache: Path
) -> None:
    bomb = gzip.compress(bytes(200_000_000), compresslevel=1)
    server.answers = [encoded(bomb, "gzip")]
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="too large"):
            download(server.url, limits=replace(FAST, max_bytes=200_000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A chunk that came may be 64 KiB, and would unfold to 64 MiB at once.
    assert peak < 4_000_000
    assert not list(cache.iterdir())


def test_what_is_compressed_twice_or_in_another_way_is_not_unfolded(server: Server, cache: Path) -> None:
    twice = gzip.compress(gzip.compress(bytes(64_000_000)))
    assert len(twice) < 1000
    for encoding in ("gzip, gzip", "br", "zstd"):
        server.answers = [encoded(twice, encoding)]
        with pytest.raises(InputError, match=f"sends it as '{encoding}'"):
            download(server.url, limits=FAST)
    assert server.requests == 3
    assert not list(cache.iterdir())


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(gzip.compress(BODY), id="whole"),
        pytest.param(gzip.compress(BODY[:100_000]) + gzip.compress(BODY[100_000:]), id="joined"),
        pytest.param(gzip.compress(BODY, compresslevel=0), id="stored"),
    ],
)
def test_a_file_that_a_server_compresses_though_it_should_not_is_read(server: Server, body: bytes) -> None:
    server.answers = [encoded(body, "gzip")]
    assert download(server.url, limits=FAST).read_bytes() == BODY


def test_a_compressed_file_without_its_end_is_tried_again(server: Server) -> None:
    body = gzip.compress(BODY)
    server.answers = [encoded(body[:-9], "gzip"), encoded(body, "gzip")]
    assert download(server.url, limits=FAST).read_bytes() == BODY
    assert server.requests == 2


def test_what_is_called_compressed_and_is_not_is_refused(server: Server, cache: Path) -> None:
    server.answers = [encoded(BODY, "gzip")]
    with pytest.raises(InputError, match="calls gzip is none"):
        download(server.url, limits=FAST)
    assert not list(cache.iterdir())


def sends_parts(body: bytes, tag: str, *, most: int | None = None) -> Answer:
    """A server that knows `Range` and `If-Range`, and breaks off after `most` bytes."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-") or 0) if asked else 0
        if request.headers.get("If-Range") != tag:
            start = 0
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        request.send_header("ETag", tag)
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        request.wfile.write(body[start:] if most is None else body[start : start + most])

    return answer


def test_a_download_that_was_cut_off_goes_on_where_it_stood(server: Server) -> None:
    server.answers = [
        sends_parts(BODY, '"1"', most=5000),
        sends_parts(BODY, '"1"', most=7000),
        sends_parts(BODY, '"1"'),
    ]
    assert download(server.url, limits=FAST).read_bytes() == BODY
    assert [headers.get("range") for headers in server.headers] == [None, "bytes=5000-", "bytes=12000-"]


def test_a_download_whose_file_has_changed_meanwhile_begins_anew(server: Server) -> None:
    other = BODY.replace(b"Say", b"Tell")
    server.answers = [sends_parts(BODY, '"1"', most=5000), sends_parts(other, '"2"')]
    assert download(server.url, limits=FAST).read_bytes() == other


def test_without_a_name_for_its_content_a_file_is_fetched_from_its_beginning(server: Server) -> None:
    server.answers = [
        lambda request: send(request, BODY[:5000], length=len(BODY)),
        lambda request: send(request, BODY),
    ]
    assert download(server.url, limits=FAST).read_bytes() == BODY
    assert "range" not in server.headers[1]


def test_a_file_that_is_not_what_it_was_is_told(server: Server, tmp_path: Path) -> None:
    first = load_rows(server.url, folder=tmp_path)
    assert not first.notes
    for path in (tmp_path / "cache" / "downloads").glob("*"):
        if path.suffix != ".json":
            path.unlink()  # as the cache's limit may have it
    server.answers = [lambda request: send(request, BODY.replace(b"Say", b"Tell"))]
    second = load_rows(server.url, folder=tmp_path)
    [note] = second.notes
    assert first.sha256[:12] in note
    assert second.sha256[:12] in note


def test_tokens_of_the_environment_are_not_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    download(server.url)
    assert "hf_secret" not in str(server.headers)


def test_a_circle_of_redirects_ends(server: Server) -> None:
    server.answers = [redirect(server.url)]
    with pytest.raises(InputError, match="can't be downloaded"):
        download(server.url, limits=FAST)
    assert server.requests <= 6


def test_secrets_of_a_url_appear_nowhere(
    server: Server, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpx").setLevel(logging.INFO)
    url = server.url.replace("http://", "http://me:secret@") + "?token=hidden"
    download(url)
    written = "".join(path.read_text("utf-8") for path in cache.glob("*.json"))
    assert "secret" not in written + caplog.text
    assert "hidden" not in written + caplog.text
    assert shown_url(url) == f"{server.url}?…"


def test_no_network_is_one_clear_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Server()
    closed.close()
    with pytest.raises(InputError) as caught:
        download(closed.url, limits=FAST)
    [problem] = caught.value.problems
    assert problem.where == "dataset_url"
    assert "no connection" in str(problem.why)
    assert "network" in str(problem.mend)


def test_many_at_once_all_get_the_whole_file(server: Server, cache: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: download(server.url), range(8)))
    assert len(set(paths)) == 1
    assert paths[0].read_bytes() == BODY
    assert sorted(path.suffix for path in cache.iterdir()) == ["", ".json"]


def test_a_file_that_changes_on_the_server_never_mixes(server: Server) -> None:
    other = BODY.replace(b"Say", b"Tell")
    server.answers = [
        (lambda request: send(request, BODY)) if i % 2 else (lambda request: send(request, other))
        for i in range(12)
    ]
    with ThreadPoolExecutor(8) as pool:
        bodies = {path.read_bytes() for path in pool.map(lambda _: download(server.url), range(12))}
    assert bodies <= {BODY, other}
    assert download(server.url).read_bytes() in (BODY, other)


def test_a_cache_that_cannot_be_written_is_said(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way", "utf-8")
    monkeypatch.setenv("TRIGGERCTL_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError) as caught:
        download(server.url)
    assert "TRIGGERCTL_CACHE" in str(caught.value)
