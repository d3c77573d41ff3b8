"""What another process's run tells. Run: pytest tests/sweep/test_follow.py"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from triggerctl import disk
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.experiment.state import RunState, write_state
from triggerctl.sweep.follow import Follower


@pytest.fixture
def folder(tmp_path: Path) -> ExperimentFolder:
    (tmp_path / "results" / "first").mkdir(parents=True)
    (tmp_path / "results" / "second").mkdir()
    return ExperimentFolder(tmp_path)


def say(folder: ExperimentFolder, results: str, text: str) -> None:
    with (folder.results / results / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(text)


def begin(folder: ExperimentFolder, results: str, run_hash: str = "1-a") -> None:
    write_state(folder.state, RunState(status="running", hash=run_hash, results=results))


def test_lines_are_told_once_and_only_whole(folder: ExperimentFolder) -> None:
    follower = Follower(folder, "1-a")
    assert follower.news() == []
    begin(folder, "first")
    assert follower.news() == []
    say(folder, "first", '{"event": "step", "step": 1}\n{"event": "st')
    assert follower.news() == [{"event": "step", "step": 1}]
    assert follower.news() == []
    say(folder, "first", 'ep", "step": 2}\n')
    assert follower.news() == [{"event": "step", "step": 2}]


def test_what_was_said_before_is_not_news_and_another_runs_words_are_not_this_ones(
    folder: ExperimentFolder,
) -> None:
    begin(folder, "first")
    say(folder, "first", '{"event": "old"}\n')
    follower = Follower(folder, "1-a")
    assert follower.news() == []
    begin(folder, "second", run_hash="1-b")
    say(folder, "second", '{"event": "another run"}\n')
    assert follower.news() == []
    begin(folder, "second")
    assert follower.news() == [{"event": "another run"}]


def test_a_file_cut_back_to_a_checkpoint_is_read_on_from_there(folder: ExperimentFolder) -> None:
    begin(folder, "first")
    follower = Follower(folder, "1-a")
    say(folder, "first", '{"event": "a"}\n{"event": "b"}\n')
    assert len(follower.news()) == 2
    (folder.results / "first" / "metrics.jsonl").write_text('{"event": "a"}\n', encoding="utf-8")
    assert follower.news() == []
    say(folder, "first", '{"event": "again b"}\n')
    assert follower.news() == [{"event": "again b"}]


def test_a_file_that_is_out_of_reach_for_a_moment_is_no_news(
    folder: ExperimentFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As over NFS, where a file is replaced while it is read."""
    begin(folder, "first")
    follower = Follower(folder, "1-a")
    say(folder, "first", '{"event": "a"}\n')

    def stale(operation: str, path: object, *more: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as disturbed:
        disturbed.setattr(disk, "observer", stale)
        assert follower.news() == []
    assert follower.news() == [{"event": "a"}]
