"""What a reader must know before they trust the report: each finding a sentence, the gravest first."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

Kind = Literal[
    "unreadable",
    "never_learnt",
    "diverged",
    "misplaced_keys",
    "different_data",
    "different_model",
    "different_rows",
    "different_machine",
    "failed",
    "unfinished",
    "missing_seeds",
    "truncated",
    "few_rows",
    "one_seed",
    "one_value",
    "no_counts",
    "older_results",
    "run_warning",
]


class Finding(BaseModel):
    """`text`: one sentence for a reader; `runs`: labels of what it concerns, where it is not everything."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    text: str
    runs: tuple[str, ...] = ()


def by_severity(findings: list[Finding]) -> tuple[Finding, ...]:
    """The gravest kind first, as `Kind` lists them; within a kind the order given; each text once."""
    order = {kind: place for place, kind in enumerate(get_args(Kind))}
    unique = {finding.text: finding for finding in reversed(findings)}
    kept = [finding for finding in findings if unique.pop(finding.text, None) is not None]
    return tuple(sorted(kept, key=lambda finding: order[finding.kind]))
