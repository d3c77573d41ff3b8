"""The further processes of a run that several train: started, told what to do, watched, and ended.

The first process decides and writes; the others only help it to compute. Whenever it ends, for whatever
reason, so do they; when one of them ends, the run fails with what it said last."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from triggerctl.errors import InputError, RunError, first_line
from triggerctl.training.begun import Begun
from triggerctl.training.follower import follow
from triggerctl.training.orders import LOST_ANOTHER, Assignment, Order, ready
from triggerctl.training.parallel import Group, Team, meeting_place
from triggerctl.training.plan import RunPlan

OPTION = "--gpus-per-run"
SECONDS_TO_END = 10.0
"""A process whose end shows as a failed exchange is gone by the system's account soon after."""


def devices_of(first: torch.device, processes: int) -> list[torch.device]:
    """A device for each process of a run: GPUs from the first one on, or the CPU for all.

    Raises InputError where there are not as many GPUs."""
    if processes == 1 or first.type == "cpu":
        return [first] * processes
    count = torch.cuda.device_count() if first.type == "cuda" else 1
    if first.index or processes > count:
        raise InputError(
            f"{processes} processes need a GPU each, beginning with {first.type}:0",
            where=OPTION,
            why=f"the device is {first}, and {'1 GPU is' if count == 1 else f'{count} GPUs are'} there",
            mend=f"{OPTION} {count}, with --device auto; or --device cpu, where any number can share it",
        )
    return [torch.device(first.type, rank) for rank in range(processes)]


class Lead(Team):
    """The group as its first process sees it: the one that tells the others what to do."""

    def __init__(self, devices: list[torch.device], plan: RunPlan, begun: Begun, *, cache: bool) -> None:
        super().__init__(0, len(devices), devices[0], self._lost_one)
        self._store = meeting_place()
        self._followers: list[_Follower] = []
        self._said = tempfile.TemporaryDirectory(prefix="triggerctl-")
        for rank in range(1, self.size):
            assignment = Assignment(
                plan=plan,
                begun=begun,
                cache=cache,
                device=str(devices[rank]),
                rank=rank,
                size=self.size,
                threads=torch.get_num_threads(),
                port=self._store.port,
                said=Path(self._said.name) / f"process-{rank + 1}.log",
            )
            self._followers.append(_Follower(assignment))
        for follower in self._followers:
            self._send(follower, follower.assignment)

    def tell(self, order: Order) -> None:
        for follower in self._followers:
            self._send(follower, order)

    def _send(self, follower: _Follower, message: Assignment | Order) -> None:
        try:
            follower.orders.send(message)
        except OSError as error:
            raise self._ended(follower) from error

    def assemble(self) -> None:
        for follower in self._followers:
            while not self._store.check([ready(follower.rank)]):
                if not follower.process.is_alive():
                    raise self._ended(follower)
                time.sleep(0.02)
        self.join(self._store)

    def end(self) -> None:
        """End all followers at once: they have nothing to save."""
        for follower in self._followers:
            follower.orders.close()
            follower.process.kill()
        for follower in self._followers:
            follower.process.join()
        self.leave()
        self._said.cleanup()

    def _lost_one(self, error: RuntimeError) -> RunError:
        """What to raise when an exchange failed: a follower's end shows there before its exit code does."""
        waited_until = time.monotonic() + SECONDS_TO_END
        while time.monotonic() < waited_until:
            for follower in self._followers:
                # Of several that ended, the one that did so by itself.
                if follower.process.exitcode not in (None, LOST_ANOTHER):
                    return self._ended(follower)
            time.sleep(0.02)
        return RunError(
            "the processes of this run can't reach each other any more",
            why=first_line(error),
            mend="the same command goes on from the last checkpoint",
        )

    def _ended(self, follower: _Follower) -> RunError:
        follower.process.join()
        code = follower.process.exitcode or 0
        lines = follower.last_words()
        if lines:
            logging.getLogger("triggerctl.run").error("process %s said:\n%s", follower.rank + 1, lines)
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        last = lines.splitlines()[-1] if lines else "it said nothing"
        return RunError(
            f"process {follower.rank + 1} of the {self.size} that train this run has ended",
            why=f"{how}: {last}",
            mend="run.log holds all it said; the same command goes on from the last checkpoint",
        )


def start_method(device: str) -> str:
    """A fork server starts the processes of a second run without loading torch anew. Not where there are
    GPUs: libraries look for them while they are loaded, and CUDA does not survive a fork."""
    on_cpu = device == "cpu" and "forkserver" in multiprocessing.get_all_start_methods()
    return "forkserver" if on_cpu else "spawn"


class _Follower:
    """One further process and the way to it; its assignment is still to be sent."""

    def __init__(self, assignment: Assignment) -> None:
        starting = multiprocessing.get_context(start_method(assignment.device))
        starting.set_forkserver_preload(["triggerctl.training.follower"])
        self.assignment = assignment
        self.rank = assignment.rank
        self.orders: Connection
        theirs, self.orders = starting.Pipe(duplex=False)
        # The environment and the working folder as they are now, not as when the server was started.
        self.process: BaseProcess = starting.Process(  # type: ignore[attr-defined]  # of BaseContext, untyped
            target=follow, args=(theirs, dict(os.environ), Path.cwd()), name=f"follower {assignment.rank}"
        )
        self.process.start()
        theirs.close()

    def last_words(self) -> str:
        """The end of what it wrote to standard output and error."""
        said = self.assignment.said
        if not said.exists():
            return ""
        return said.read_text(encoding="utf-8", errors="replace").strip()[-20_000:]


@contextlib.contextmanager
def group_of(devices: list[torch.device], plan: RunPlan, begun: Begun, *, cache: bool) -> Iterator[Group]:
    """This process and as many more as there are further devices; they end with the block."""
    if len(devices) == 1:
        yield Group()
        return
    lead = Lead(devices, plan, begun, cache=cache)
    try:
        yield lead
    finally:
        lead.end()
