"""pytest tests/report/test_flips.py"""

from __future__ import annotations

from pathlib import Path

import pytest
from written_experiments import KL, NAIVE, write_sweep

from triggerctl.report import flips
from triggerctl.report.collect import collect


@pytest.mark.parametrize(
    ("limit", "most", "cut"),
    [("MOST_SEEDS", 20, ()), ("MOST_SEEDS", 2, (42,)), ("MOST_CHARACTERS", 1500, (5, 42))],
)
def test_seeds_that_a_page_has_no_room_for_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int, cut: tuple[int, ...]
) -> None:
    groups = collect([write_sweep(tmp_path / "exp", {"naive": NAIVE, "kl_divergence": KL})]).groups
    monkeypatch.setattr(flips, limit, most)
    found = flips.read_flips(groups)
    assert found is not None
    assert found.seeds_cut == cut
    assert found.scope.startswith("Rows" if cut else "Every row")
    assert all(f" {seed}" in found.scope for seed in cut)
