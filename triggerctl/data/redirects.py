"""Where a server may send a download on to: to http(s) alone, not from https to http, and not from the world
into the network that this machine is in, where things answer that were never meant for the world."""

from __future__ import annotations

import ipaddress
import os
import socket

import httpx

from triggerctl.errors import InputError

PRIVATE_VARIABLE = "TRIGGERCTL_PRIVATE_REDIRECTS"
"""Set to 1 it lets a server of the world send us on to an address of the own network."""


def check_redirect(here: httpx.URL, there: httpx.URL, *, said: str, key: str) -> None:
    """Raises InputError where we don't go from `here` to `there`. `said`: the address that was asked for, as
    it may be shown; `key`: the configuration key that named it."""
    if there.scheme not in ("http", "https"):
        raise InputError(
            f"the data set's address leads to something that is no web address: {said}",
            where=key,
            why=f"it leads on to {there.scheme}:",
            mend="give the final address, if you trust it",
        )
    if here.scheme == "https" and there.scheme != "https":
        raise InputError(
            f"the data set's address leads from https to http: {said}",
            where=key,
            why="what comes over http may have been changed on the way",
            mend="give the final address, if you trust it",
        )
    allowed = os.environ.get(PRIVATE_VARIABLE) == "1"
    if not allowed and _is_private(there.host) and not _is_private(here.host):
        raise InputError(
            f"the data set's address leads into your own network: {said}",
            where=key,
            why=f"a server of the world sends us on to {there.host}",
            mend=f"give the final address, or set {PRIVATE_VARIABLE}=1, if you trust it",
        )


def _is_private(host: str) -> bool:
    """Whether a name stands for this machine or its network, or for none that is known."""
    try:
        return not all(ipaddress.ip_address(address).is_global for address in _addresses(host))
    except (OSError, ValueError):
        return True


def _addresses(host: str) -> set[str]:
    """The IP addresses of a host, without zone."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return {str(address[0]).partition("%")[0] for *_, address in found}
