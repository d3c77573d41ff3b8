"""Errors a user can act on. Each says what went wrong, where, why, and how to mend it; the command line
prints them as one block and exits with their code. Anything else that rises is a defect of ours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    what:  one sentence.
    where: file, line and key, as far as known, e.g. ``config.json:12, finetune_config.epochs``.
    why:   what was expected, or what follows from it.
    mend:  what to do about it.
    """

    what: str
    where: str | None = None
    why: str | None = None
    mend: str | None = None


class TriggerctlError(Exception):
    """The base of our errors; `exit_code` is what the process ends with."""

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        why: str | None = None,
        mend: str | None = None,
        also: tuple[Problem, ...] = (),
    ) -> None:
        self.problems: tuple[Problem, ...] = (Problem(what, where, why, mend), *also)
        super().__init__(what)

    def __str__(self) -> str:
        first = self.problems[0]
        return "; ".join(part for part in (first.what, first.where, first.why, first.mend) if part)


class InputError(TriggerctlError):
    """The user's input (arguments, configuration, data, model name) can't be used: exit 2."""

    exit_code = 2


class BusyError(InputError):
    """Another process holds the claim on this run."""


class RunError(TriggerctlError):
    """A run failed after its input had been accepted: exit 1."""

    exit_code = 1


class LostClaimError(RunError):
    """The claim on the run under way was taken over: another process goes on with it."""


class InterruptedRunError(TriggerctlError):
    """The run was asked to stop (Ctrl-C, SIGTERM, SIGHUP) and has written its checkpoint: exit 130."""

    exit_code = 130


def first_line(error: BaseException) -> str:
    """What an error of somebody else's says before it goes on for pages; its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
