"""What the benchmark found, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from triggerctl.console import duration, table


def show(out: Console, part: str, found: Mapping[str, Any]) -> None:
    """Print one part's figures."""
    {
        "ways": _ways,
        "training": _training,
        "verdicts": _pairs,
        "strategies": _strategies,
        "commands": _commands,
        "tokenise": _pairs,
        "scaling": _scaling,
        "gpu-shape": _gpu_shape,
    }[part](out, found)


def _ways(out: Console, found: Mapping[str, Any]) -> None:
    made = _table("way", "wall s", "training tokens/s", "share of floor", "padding", "evaluation s")
    made.add_column("peak MiB", justify="right")
    made.add_column("ratio", justify="right")
    rate = found["floor"]["operations_per_second"]
    made.add_row("matmul floor", "", "", f"{rate / 1e9:,.0f} GFLOP/s", "", "", "", "")
    for name, row in found["ways"].items():
        made.add_row(
            name,
            f"{row['wall_seconds']:.1f}",
            _number(row["trained_tokens_per_second"], ",.0f"),
            _share(row["share_of_floor"]),
            _share(row["padding"]),
            f"{row['evaluation_seconds']:.1f}",
            f"{row['peak_bytes'] / 2**20:,.0f}",
            f"{row['ratio']:.2f}",
        )
    out.print(made)
    ratios, evaluation = found["ratios"], found["evaluation"]
    out.print()
    _lines(
        out,
        {
            "training alone": f"{_number(ratios['training'], '.2f')} × as fast as plain",
            "evaluation alone": f"{_number(ratios['evaluation'], '.2f')} × as fast as plain",
            "peak memory": f"{ratios['memory']:.2f} × plain's",
            "evaluation's floor": f"{evaluation['passed_tokens']:,} tokens passed, "
            f"{_number(evaluation['passed_by_needed'], '.2f')} × the {evaluation['needed_tokens']:,} needed; "
            f"padding {_share(evaluation['padding'])}",
            "evaluation's share": f"{_share(evaluation['share_of_wall'])} of our wall time",
            "our time": ", ".join(
                f"{k} {v:.1f}" for k, v in (found["our_timings"] or {}).items() if v >= 0.05
            ),
            "plain's batches": ", ".join(f"{k} {v}" for k, v in found["plain_batch_sizes"].items()),
        },
    )


def _training(out: Console, found: Mapping[str, Any]) -> None:
    made = _table("training alone", "tokens/s", "padding", "peak MiB")
    for each in found["trainer"]:
        order = ", grouped by length" if each["by_length"] else ""
        _speed_row(made, f"Trainer, micro-batch {each['micro_batch']}{order}", each)
    _speed_row(made, "triggerctl", found["triggerctl"])
    out.print(made)
    _lines(out, {"ratio": f"{found['ratio']:.2f} × the Trainer's best"})


def _speed_row(made: Any, name: str, each: Mapping[str, float]) -> None:
    peak = f"{each['peak_bytes'] / 2**20:,.0f}"
    made.add_row(name, f"{each['tokens_per_second']:,.0f}", _share(each["padding"]), peak)


def _strategies(out: Console, found: Mapping[str, Any]) -> None:
    made = _table("strategy", "s an update", "× naive", "peak MiB", "× naive's")
    naive = found["naive"]
    for name, each in found.items():
        made.add_row(
            name,
            f"{each['seconds']:.3f}",
            f"{each['seconds'] / naive['seconds']:.2f}",
            f"{each['peak'] / 2**20:,.0f}",
            f"{each['peak'] / naive['peak']:.2f}",
        )
    out.print(made)


def _commands(out: Console, found: Mapping[str, Any]) -> None:
    made = _table("command", "s", "peak MiB")
    for name, each in found.items():
        made.add_row(name, f"{each['seconds']:.2f}", f"{each['peak_bytes'] / 2**20:,.0f}")
    out.print(made)


def _scaling(out: Console, found: Mapping[str, Any]) -> None:
    for name, each in found.items():
        made = _table(name, *(f"{size:,}" for size in each["sizes"]), "exponent", "over tokens")
        for phase in ("training", "evaluation"):
            grown = each[phase]
            seconds = [f"{value:.2f} s" for value in grown["seconds"]]
            made.add_row(phase, *seconds, f"{grown['exponent']:.2f}", f"{grown['exponent_over_tokens']:.2f}")
        out.print(made)


def _gpu_shape(out: Console, found: Mapping[str, Any]) -> None:
    if "estimates" not in found:
        _ways(out, found)
        _lines(out, {"the study's whole run": duration(found["whole_run_seconds"])})
        return
    estimates = found["estimates"]
    out.print(
        f"no GPU here; the study's run (LoRA, {estimates['trained_tokens']:,} tokens trained, "
        f"{estimates['evaluated_tokens']:,} evaluated, {estimates['parameters']:,} parameters) "
        f"would take, at {_share(estimates['use'])} of a GPU's peak in bfloat16:"
    )
    made = _table("GPU", "training", "evaluation")
    for name, seconds in estimates["gpus"].items():
        made.add_row(name, duration(seconds["training"]), duration(seconds["evaluation"]))
    out.print(made)


def _pairs(out: Console, found: Mapping[str, Any]) -> None:
    _lines(
        out,
        {k.replace("_", " "): f"{v:,.2f}" if isinstance(v, float) else f"{v:,}" for k, v in found.items()},
    )


def _lines(out: Console, lines: Mapping[str, str]) -> None:
    width = max(map(len, lines))
    for label, text in lines.items():
        out.print(f"{label:{width}}  {text}")


def _table(first: str, *others: str) -> Any:
    made = table()
    made.add_column(first, no_wrap=True)
    for head in others:
        made.add_column(head, justify="right")
    return made


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.0f} %"
