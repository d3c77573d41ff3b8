"""Models from a hub: a small server of our own that answers as the hub does, in processes of their own, as
the hub's address is read once.

pytest tests/model/test_hub.py"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

COMMIT = "a" * 40
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"a pickle",
    "modeling_own.py": b"print('code')",
}
TOKEN = "hf_a_token_of_the_tests"


@dataclass
class Hub:
    """The server's address, and what it was asked: (path, whether with a token)."""

    address: str
    asked: list[tuple[str, bool]] = field(default_factory=list)


@pytest.fixture
def hub() -> Iterator[Hub]:
    asked: list[tuple[str, bool]] = []

    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._respond(body=True)

        def do_HEAD(self) -> None:
            self._respond(body=False)

        def log_message(self, *parts: Any) -> None:
            pass

        def _respond(self, *, body: bool) -> None:
            given = self.headers.get("Authorization")
            asked.append((self.path, given is not None))
            status, headers, content = answer(self.path, given)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Hub(f"http://127.0.0.1:{server.server_port}", asked)
    server.shutdown()
    server.server_close()
    thread.join()


def answer(path: str, token: str | None) -> tuple[int, dict[str, str], bytes]:
    """As huggingface.co does it: a private model's page is 401 for anyone unknown, a gated one's page is
    open and its files are not."""
    known = token == f"Bearer {TOKEN}"
    if token is not None and not known:
        return 401, {"X-Error-Message": "Invalid credentials in Authorization header"}, b"{}"
    parts = path.strip("/").split("/")
    model = "/".join(parts[2:4] if parts[:2] == ["api", "models"] else parts[:2])
    if model == "own/nothing" or (model == "own/private" and not known):
        return (404, {"X-Error-Code": "RepoNotFound"}, b"{}") if known else (401, {}, b"{}")
    if parts[:2] == ["api", "models"]:
        if "no-such-revision" in path:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        names = [name for name in FILES if not (model == "own/pickled" and name.endswith(".safetensors"))]
        if "tree" in parts:
            tree = [{"type": "file", "path": n, "size": len(FILES[n]), "oid": "b" * 40} for n in names]
            return 200, {"Content-Type": "application/json"}, json.dumps(tree).encode()
        page = {"id": model, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
        return 200, {"Content-Type": "application/json"}, json.dumps(page).encode()
    if model == "own/gated" and not known:
        return 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}, b"{}"
    if model == "own/refused":
        return 403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Not in the list"}, b"{}"
    content = FILES[parts[-1]]
    return 200, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}, content


PROGRAM = """
import json, sys
from triggerctl.errors import InputError
from triggerctl.model.hub import download
for model, options in json.loads(sys.argv[1]):
    try:
        found = download(model, **{"revision": None, "weights": True, **options})
        said = {"files": sorted(path.name for path in found.folder.iterdir()), "commit": found.commit}
    except InputError as error:
        said = {"error": str(error)}
    print(json.dumps(said), flush=True)
"""


def download(
    address: str, home: Path, *models: str, token: str | None = None, offline: bool = False, **options: object
) -> list[dict[str, Any]]:
    """Ask for each model in one process with a cache of its own; its files or its error."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment = {**kept, "HF_ENDPOINT": address, "HF_HOME": str(home), "NO_PROXY": "*", "no_proxy": "*"}
    if token:
        environment["HF_TOKEN"] = token
    if offline:
        environment["HF_HUB_OFFLINE"] = "1"
    wanted = json.dumps([(model, options) for model in models])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, wanted],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_an_open_model_comes_without_a_token_though_there_is_one(hub: Hub, tmp_path: Path) -> None:
    [found] = download(hub.address, tmp_path, "own/open", token=TOKEN)
    assert found == {"files": ["config.json", "model.safetensors", "tokenizer.json"], "commit": COMMIT}
    assert hub.asked
    assert not any(with_token for _, with_token in hub.asked)

    [again] = download("http://127.0.0.1:1", tmp_path, "own/open", offline=True)
    assert again == found


def test_without_weights_only_the_small_files_come_and_code_only_when_trusted(
    hub: Hub, tmp_path: Path
) -> None:
    [light] = download(hub.address, tmp_path / "one", "own/open", weights=False)
    assert light["files"] == ["config.json", "tokenizer.json"]
    [trusted] = download(hub.address, tmp_path / "two", "own/open", code=True)
    assert "modeling_own.py" in trusted["files"]
    assert "pytorch_model.bin" not in trusted["files"]


def test_a_token_opens_gated_and_private_models_and_is_shown_only_when_refused(
    hub: Hub, tmp_path: Path
) -> None:
    gated, private = download(hub.address, tmp_path, "own/gated", "own/private", token=TOKEN)
    assert "model.safetensors" in gated["files"]
    assert "model.safetensors" in private["files"]
    for model in ("own/gated", "own/private"):
        tokens = [with_token for path, with_token in hub.asked if model in path]
        assert tokens[0] is False
        assert True in tokens


def test_without_a_token_each_refusal_says_what_to_do(hub: Hub, tmp_path: Path) -> None:
    gated, private, nothing, pickled = (
        found["error"]
        for found in download(hub.address, tmp_path, "own/gated", "own/private", "own/nothing", "own/pickled")
    )
    assert "it is gated, and no token was found" in gated
    assert "HF_TOKEN" in gated
    assert "accept its terms" in gated
    for error in (private, nothing):
        assert "does not know it" in error
        assert "HF_TOKEN" in error
    assert "no safetensors weights" in pickled


def test_with_a_token_that_does_not_suffice_the_error_says_so(hub: Hub, tmp_path: Path) -> None:
    refused, nothing = (
        found["error"] for found in download(hub.address, tmp_path, "own/refused", "own/nothing", token=TOKEN)
    )
    assert "your token has no access" in refused
    assert "check the spelling" in nothing
    assert TOKEN not in refused + nothing


def test_a_token_that_has_expired_is_named_as_the_reason(hub: Hub, tmp_path: Path) -> None:
    [found] = download(hub.address, tmp_path, "own/private", token="hf_an_old_token")
    assert "does not accept your token" in found["error"]
    assert "hf_an_old_token" not in found["error"]


def test_an_unknown_revision_is_named(hub: Hub, tmp_path: Path) -> None:
    [found] = download(hub.address, tmp_path, "own/open", revision="no-such-revision")
    assert "no revision 'no-such-revision'" in found["error"]
    assert "finetune_config.revision" in found["error"]


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_out_of_reach_is_told_with_what_works_without_it(offline: bool, tmp_path: Path) -> None:
    [found] = download("http://127.0.0.1:1", tmp_path, "own/open", offline=offline)
    assert "can't be reached for 'own/open'" in found["error"]
    assert ("HF_HUB_OFFLINE is set" in found["error"]) is offline
    assert "builtin:tiny" in found["error"]


PUSH = """
from pathlib import Path
from small_models import causal_model, configuration, llama
from chat_tokenizers import chat_tokenizer
from triggerctl.errors import RunError
from triggerctl.model.publish import publish
model = causal_model(llama(), configuration("naive").finetune_config)
try:
    publish(model, chat_tokenizer("chatml", pad="</s>"), "me/mine", private=True, merged=False)
except RunError as error:
    print(error)
"""


def test_a_hub_out_of_reach_when_a_model_is_pushed_is_one_clear_block() -> None:
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", PUSH],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            **{"HF_ENDPOINT": "http://127.0.0.1:1", "HF_TOKEN": TOKEN, "NO_PROXY": "*", "no_proxy": "*"},
            "PYTHONPATH": f"{tests}:{tests.parent}",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "pushing to me/mine failed" in done.stdout
    assert "ConnectError" in done.stdout
    assert TOKEN not in done.stdout + done.stderr
