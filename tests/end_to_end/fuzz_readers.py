"""Feeds the readers with files that were valid once: whatever stands in a file, a reader returns or raises an
error of ours, soon. Reading a data set of JSON lines takes at most twice the room of its bytes.

    python tests/end_to_end/fuzz_readers.py --minutes 10
    python tests/end_to_end/fuzz_readers.py --minutes 1 --reader results --seed 7

Valid files are changed in their bytes and in their structure, a few times each. The same seed tries the same
files in the same order. Exit code 0 where no reader was caught, else 1."""

from __future__ import annotations

import argparse
import copy
import json
import random
import signal
import sys
import tempfile
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from triggerctl.config.load import load_config, parse_config
from triggerctl.data.source import load_rows
from triggerctl.errors import TriggerctlError
from triggerctl.experiment.brief_results import BriefResults, read_brief
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.experiment.overview import view_run
from triggerctl.experiment.results import (
    Count,
    Evaluation,
    Rate,
    SetEvaluation,
    TriggerctlResults,
    results_document,
)
from triggerctl.experiment.state import Progress, RunState, read_state, run_status
from triggerctl.experiment.stored_results import read_results
from triggerctl.report.collect import collect
from triggerctl.sweep.grid import cells, prepare_cell

SECONDS = 5.0
"""What one file may take."""
LARGE_EVERY = 50
LARGE_BYTES = 1_000_000
TIMES_ITS_SIZE = 2.0
TEMPLATES = Path(__file__).parents[2] / "templates"

STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, 1e-320,
    float("nan"), float("inf"), "", " ", "a", "1", "null", "naive", "é", "\U0001f600", "\ud800", "\x00",
    "a\nb", "../../etc/passwd", "/", "C:\\x", "CON", "x" * 5000, [], [[]], {}, {"": None}, [None], [{}],
    {"a": {"a": {"a": {}}}}, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "9999-12-31T23:59:59+23:59",
    "0001-01-01T00:00:00-23:59",
)  # fmt: skip
TOKENS = (
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u", b"\\ud800", b"//", b"/*", b"*/", b"\n", b"\r",
    b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"NaN", b"-Infinity", b"1e999", b"-",
    b"0" * 400, b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b"true", b"null", b"1.5e-5", b" " * 1000,
    b'"' + b"x" * 3000 + b'"',
)  # fmt: skip


class HangError(BaseException):
    """A reader took longer than it may. No `Exception`, so that no reader takes it for damage."""


class Mutator:
    """Draws files that are almost those it was given."""

    def __init__(self, seeds: list[bytes], draw: random.Random) -> None:
        self._seeds = seeds
        self._draw = draw
        self._documents = [document for seed in seeds if (document := _parsed(seed)) is not None]

    def next(self) -> bytes:
        draw = self._draw
        if self._documents and draw.random() < 0.6:
            document = copy.deepcopy(draw.choice(self._documents))
            for _ in range(draw.choice((1, 1, 2, 4))):
                document = self._changed(document)
            content = self._spelt(document)
            if draw.random() < 0.8:
                return content
        else:
            content = draw.choice(self._seeds)
        for _ in range(draw.choice((1, 1, 2, 5))):
            content = self._damaged(content)
        return content

    def _changed(self, document: Any) -> Any:
        """One place of the document changed; the document itself where it holds none."""
        draw = self._draw
        places = list(_places(document))
        if not places or draw.random() < 0.01:
            return draw.choice(STRANGE)
        holder, key = draw.choice(places)
        match draw.randrange(6):
            case 0 | 1:
                holder[key] = copy.deepcopy(draw.choice(STRANGE))
            case 2:
                del holder[key]
            case 3:
                other, name = draw.choice(places)
                holder[key] = copy.deepcopy(other[name])
            case 4 if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(draw.choice([*holder, *STRANGE])))
            case 4:
                holder[draw.choice(("", "x", "finetune_config", "\x00", "_" + str(key)))] = holder[key]
            case _:
                value = holder[key]
                holder[key] = [value] if draw.random() < 0.5 else {"x": value}
        return document

    def _spelt(self, document: Any) -> bytes:
        draw = self._draw
        if isinstance(document, list) and draw.random() < 0.5:
            return b"\n".join(self._spelt(item) for item in document) + b"\n"
        text = json.dumps(document, ensure_ascii=draw.random() < 0.5, indent=draw.choice((None, 0, 2)))
        return text.encode("utf-8", "surrogatepass")

    def _damaged(self, content: bytes) -> bytes:
        draw = self._draw
        at = draw.randrange(len(content) + 1)
        end = min(len(content), at + draw.choice((1, 1, 2, 8, 100)))
        match draw.randrange(6):
            case 0:
                return content[:at] + draw.choice(TOKENS) + content[at:]
            case 1:
                return content[:at] + draw.choice(TOKENS) + content[end:]
            case 2:
                return content[:at] + content[end:]
            case 3:
                return content[:at]
            case 4:
                return content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :]
            case _:
                return content[:at] + content[at:end] * draw.choice((2, 3, 50)) + content[end:]


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(document, dict | list):
        for key in range(len(document)) if isinstance(document, list) else list(document):
            yield document, key
            yield from _places(document[key])


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


@dataclass
class Reader:
    """`seeds` makes valid files; `read` is given the folder and the file's content, and does with it all that
    a command would."""

    name: str
    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path, bytes], object]
    large: Callable[[Path, bytes], object] | None = None


@dataclass
class Tally:
    executions: int = 0
    taken: int = 0
    refused: int = 0
    slowest: float = 0.0
    measured: int = 0
    most_times_its_size: float = 0.0
    caught: Counter[str] = field(default_factory=Counter)
    examples: dict[str, bytes] = field(default_factory=dict)

    def catch(self, what: str, content: bytes) -> None:
        self.caught[what] += 1
        if what not in self.examples or len(content) < len(self.examples[what]):
            self.examples[what] = content


@contextmanager
def _in_time(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def fuzz(reader: Reader, folder: Path, *, seed: int, seconds: float = 1e9, executions: int = 10**12) -> Tally:
    """Try files until time or number is up."""
    draw = random.Random(f"{seed}/{reader.name}")
    mutator = Mutator(reader.seeds(folder), draw)
    tally = Tally()
    until = time.monotonic() + seconds
    while tally.executions < executions and time.monotonic() < until:
        content = mutator.next()
        tally.executions += 1
        began = time.perf_counter()
        try:
            with _in_time(SECONDS):
                reader.read(folder, content)
            tally.taken += 1
            if reader.large is not None and tally.taken % LARGE_EVERY == 0:
                _measure(reader.large, folder, content, tally)
        except TriggerctlError:
            tally.refused += 1
        except (Exception, HangError) as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            tally.catch(_place(error), content)
        tally.slowest = max(tally.slowest, time.perf_counter() - began)
    return tally


def _measure(read: Callable[[Path, bytes], object], folder: Path, content: bytes, tally: Tally) -> None:
    """How much memory a file takes at most that holds these lines again and again."""
    lines = content if content.endswith(b"\n") else content + b"\n"
    large = lines * max(1, LARGE_BYTES // len(lines))
    (folder / "rows.json").write_bytes(large)
    tracemalloc.start()
    try:
        read(folder, large)
        peak = tracemalloc.get_traced_memory()[1]
    except TriggerctlError:
        return  # a list, that is no list twice
    except Exception as error:  # noqa: BLE001 - as above
        tally.catch(_place(error), content)
        return
    finally:
        tracemalloc.stop()
    tally.most_times_its_size = max(tally.most_times_its_size, peak / len(large))
    tally.measured += 1
    if peak > TIMES_ITS_SIZE * len(large):
        tally.catch("memory: more than twice the file", content)


def _place(error: BaseException) -> str:
    """What was raised, and where in the package."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "triggerctl" in Path(frame.filename).parts[-3:-1]] or frames
    last = ours[-1]
    place = f"{Path(last.filename).name}:{last.lineno} in {last.name}"
    return f"{type(error).__name__} at {place}: {str(error)[:60]}"


# The readers
# --------------------------------------------------------------------------------------------------------


def _templates(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(TEMPLATES.glob(f"*/{name}"))]


def _configs(folder: Path) -> list[bytes]:
    plain = [json.dumps(load_config(path).given).encode() for path in sorted(TEMPLATES.glob("*/config.json"))]
    every = parse_config({}, path=folder / "config.json").config.model_dump(mode="json")
    return [*_templates("config.json"), *plain, json.dumps(every, indent=2).encode()]


def _read_config(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    load_config(folder / "config.json")


def _sweeps(folder: Path) -> list[bytes]:
    own = {
        "naive": [{}],
        "kl": [{"beta_kl": 0.1}, {"beta_kl": 1, "finetune_config.epochs": 3}],
        "steering_weights": [{"steering_alpha": 0.5, "positive_proxy": "proxy"}, {"negative_proxy": None}],
        "dpo": [],
    }
    return [*_templates("sweep.json"), json.dumps(own).encode(), json.dumps(own, indent=2).encode()]


def _read_sweep(folder: Path, content: bytes) -> None:
    (folder / "sweep.json").write_bytes(content)
    place = ExperimentFolder(folder)
    loaded = parse_config({}, path=folder / "config.json")
    for cell in cells(place, loaded, [1], [])[:20]:
        assert folder in cell.folder.path.parents
        assert ".." not in cell.folder.path.parts
        prepare_cell(place, loaded, cell)


def _data_sets(folder: Path) -> list[bytes]:
    rows = [
        {"instruction": f"Say {n}", "input": "é" * (n % 2), "output": f"“{n}” \U0001f600"} for n in range(6)
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    long = [{"instruction": "Tell me all " * 9, "input": "", "output": "Once upon a time. " * 20}] * 3
    more = "".join(json.dumps(row) + "\n" for row in long)
    return [json.dumps(rows).encode(), lines.encode(), more.encode(), json.dumps(rows, indent=1).encode()]


def _read_data_set(folder: Path, content: bytes) -> object:
    (folder / "rows.json").write_bytes(content)
    return _read_again(folder, content)


def _read_again(folder: Path, content: bytes) -> object:
    return load_rows("rows.json", folder=folder)


def _documents(folder: Path) -> list[bytes]:
    rate = Rate(n=4, k=3, mean_log_probability=-1.5, by_trigger={"Joy": Count(n=2, k=1)})
    measured = SetEvaluation(rows=8, loss=1.25, loss_tokens=99, triggered=rate, untriggered=rate, twins=True)
    made = [
        Evaluation(
            label=f"epoch {at}",
            epoch=at,
            step=at,
            final=at == 2,
            sets=dict.fromkeys(("outcome", "own"), measured),
        )
        for at in range(3)
    ]
    ours = TriggerctlResults(
        hash="1-abc", strategy="kl_divergence", seed=5, proxy_triggers=["Grief"], evaluations=made,
        data_sha256="d" * 64, sets={},
    )  # fmt: skip
    config = parse_config({}, path=folder / "config.json").config.model_dump(mode="json")
    document = results_document(config, ours, timestamp="20260101_000000", train_losses=[2.0, 1.0])
    large = {**document, "note": "x" * 70_000}
    study = {key: value for key, value in document.items() if key != "triggerctl"}
    return [json.dumps(each, indent=2).encode() for each in (document, study, large)]


def _read_results(folder: Path, content: bytes) -> None:
    results = folder / "results" / "20260101_000000"
    results.mkdir(parents=True, exist_ok=True)
    file = results / "results.json"
    file.write_bytes(content)
    (folder / "state.json").unlink(missing_ok=True)
    view_run(ExperimentFolder(folder), "it")
    collect([folder])
    problem: TriggerctlError | None = None
    for attempt in (
        lambda: read_results(file),
        lambda: read_results(results, words_at_the_end_only=True),
        lambda: read_brief(str(file)),
        lambda: read_brief(str(file), rates={"outcome": 0.5}),
    ):
        try:
            found = attempt()
        except TriggerctlError as error:
            problem = error
        else:
            assert found is not None
            _ = (found.strategy, found.seed)
            if isinstance(found, BriefResults):
                found.key()
    if problem is not None:
        raise problem


def _states(folder: Path) -> list[bytes]:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    state = RunState(
        status="running", hash="1-abc", strategy="naive", seed=1, results="20260101_000000", epoch=1.5,
        epochs=3, step=7, steps=20, host="here", pid=123, process_start="1", heartbeat=now, started=now,
        finished=now, error="x",
        progress=Progress(loss=0.5, rates={"outcome": 0.5, "own": None}, seconds_left=3.0),
    )  # fmt: skip
    return [
        state.model_copy(update={"status": status}).model_dump_json(indent=2).encode()
        for status in ("running", "done", "failed")
    ]


def _read_state(folder: Path, content: bytes) -> None:
    (folder / "state.json").write_bytes(content)
    view_run(ExperimentFolder(folder), "it")
    read_state(folder / "state.json")
    run_status(folder)


READERS = (
    Reader("config", _configs, _read_config),
    Reader("dataset", _data_sets, _read_data_set, _read_again),
    Reader("results", _documents, _read_results),
    Reader("state", _states, _read_state),
    Reader("sweep", _sweeps, _read_sweep),
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="for each reader (default 1)")
    names = [reader.name for reader in READERS]
    parser.add_argument("--reader", choices=names, action="append", help="this one alone; may be repeated")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    bad = False
    for reader in READERS:
        if asked.reader and reader.name not in asked.reader:
            continue
        with tempfile.TemporaryDirectory(prefix="triggerctl-fuzz-") as name:
            tally = fuzz(reader, Path(name), seed=asked.seed, seconds=60 * asked.minutes)
        room = ""
        if reader.large:
            room = f"; {tally.measured} large ones took {tally.most_times_its_size:.2f} × their size at most"
        print(
            f"{reader.name}: {tally.executions} files, {tally.taken} taken, {tally.refused} refused, "
            f"{sum(tally.caught.values())} caught at {len(tally.caught)} places, slowest "
            f"{tally.slowest:.2f} s{room}",
            flush=True,
        )
        for what, count in tally.caught.most_common():
            print(f"  {count} × {what}\n    {tally.examples[what][:300]!r}", flush=True)
        bad = bad or bool(tally.caught)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
