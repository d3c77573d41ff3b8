"""The Ray cluster itself: joining one, or beginning one on this machine, with nothing of Ray's on the screen;
and which of its nodes live."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from triggerctl.cores import available_cores
from triggerctl.errors import InputError, first_line

NODES_SECONDS = 2.0
"""Between two looks at which nodes live."""
KNOCK_SECONDS = 10.0
"""How long a cluster may take to answer."""
_OBJECT_STORE_BYTES = 80 * 2**20
"""What a cluster of our own sets aside for passing objects: near the least that Ray takes, for orders and
answers are small."""


@dataclass(frozen=True, slots=True)
class Node:
    """What a living node of the cluster has in all; `memory` in bytes."""

    address: str
    cpus: float
    gpus: float
    memory: float


class NodeWatch:
    """Watches which nodes of a cluster live."""

    def __init__(self, alive: Sequence[Node]) -> None:
        self._alive = {node.address for node in alive}
        self._looked = time.monotonic()

    def lost(self, ray: Any) -> list[str]:
        """The nodes that have died since the last look."""
        if time.monotonic() - self._looked < NODES_SECONDS:
            return []
        self._looked = time.monotonic()
        before, self._alive = self._alive, {node.address for node in living_nodes(ray)}
        return sorted(before - self._alive)


def living_nodes(ray: Any) -> list[Node]:
    """The nodes that live, each under an address of its own."""
    found = []
    for entry in ray.nodes():
        if entry["Alive"]:
            has = entry["Resources"]
            address = f"{entry['NodeManagerAddress']}:{entry['NodeManagerPort']}"
            found.append(Node(address, has.get("CPU", 0.0), has.get("GPU", 0.0), has.get("memory", 0.0)))
    return found


def connect(address: str | None) -> Any:
    """Join the cluster, or begin one on this machine, with nothing of Ray's on the screen and our own
    signal handlers left in place. Raises InputError where that fails."""
    # Read by Ray when it is imported, or by the processes that it starts.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    own: dict[str, Any] = {
        "num_cpus": available_cores(),
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
    }
    with _signal_handlers_kept():
        try:
            _knock(address or "")
            ray.init(
                address=address or "local",
                log_to_driver=False,
                configure_logging=False,
                **({} if address else own),
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise _no_cluster(address, error) from error
    _silence()
    return ray


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at `host:port` or `ray://host:port`: Ray itself would ask for
    minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()


def _silence() -> None:
    """Keep Ray's reports of deaths, which hold pages of its own logs, off standard output: what matters of
    them is told by `note`. Ray has no option for it, only this switch; where it is gone, they are shown."""
    from ray._private import worker

    if hasattr(worker, "_worker_logs_enabled"):
        worker._worker_logs_enabled = False


@contextlib.contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Put the handlers back that Ray replaces when it begins."""
    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM) if here}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _no_cluster(address: str | None, error: Exception) -> InputError:
    if address is None:
        return InputError("Ray can't be started here", where="--launcher ray", why=first_line(error))
    return InputError(
        "no Ray cluster answers",
        where=f"RAY_ADDRESS={address}",
        why=first_line(error),
        mend="`ray start --head` begins one; without RAY_ADDRESS the sweep begins its own on this machine",
    )
