"""What is kept on disk: the networks, and which container has which place in them.

A network's file is durable. A container's is whole or not there, but not forced to the disk: it is needed after the end
of a daemon, and not after that of the machine, which ends all containers too.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from real_engine.errors import EngineError
from real_engine.files import write_durably
from real_engine.networks.ports import PortBinding, bindings_from_json, bindings_json
from real_engine.networks.spec import DnsOptions, Endpoint, Network

_MOST_BYTES = 1 << 24
_NAME = re.compile(r"[A-Za-z0-9_.-]+\.json")


@dataclass(frozen=True, slots=True)
class Membership:
    """All places of one container, what it publishes at which ports of the host, and its name servers."""

    container_id: str
    endpoints: tuple[Endpoint, ...]
    bindings: tuple[PortBinding, ...] = ()
    dns: DnsOptions = field(default_factory=DnsOptions)


class NetworkStore:
    """The directory of the networks. Its users see to it that one file has one writer at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._members = directory / "containers"
        for each in (directory, self._members):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)

    def networks(self) -> list[Network]:
        """All networks.

        Raises:
            EngineError: a file can't be read as one; it is named.
        """
        found = []
        for path in self._files(self.directory):
            try:
                found.append(Network.from_json(_read(path)))
            except (KeyError, TypeError, ValueError) as error:
                raise EngineError(
                    f"{path} is not a network as this engine writes it ({error!r}); move it away"
                ) from None
        return found

    def save(self, network: Network) -> None:
        """Keep a network."""
        write_durably(self.directory / f"{network.id}.json", json.dumps(network.to_json()).encode(), 0o600)

    def remove(self, network: Network) -> None:
        """Forget a network."""
        (self.directory / f"{network.id}.json").unlink(missing_ok=True)

    def memberships(self) -> list[Membership]:
        """Those of all containers. A file that can't be read is of a machine that crashed, and is removed."""
        found = []
        for path in self._files(self._members):
            try:
                written = _read(path)
                found.append(
                    Membership(
                        written["container_id"],
                        tuple(Endpoint.from_json(each) for each in written["endpoints"]),
                        tuple(bindings_from_json(written["bindings"])),
                        DnsOptions(*(tuple(each) for each in written["dns"])),
                    )
                )
            except (KeyError, TypeError, ValueError):
                path.unlink(missing_ok=True)
        return found

    def save_membership(self, membership: Membership) -> None:
        """Keep a container's places; with none left, forget the container."""
        path = f"{self._members}/{membership.container_id}.json"
        if not membership.endpoints:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        dns = membership.dns
        written = {
            "container_id": membership.container_id,
            "endpoints": [each.to_json() for each in membership.endpoints],
            "bindings": bindings_json(membership.bindings),
            "dns": [dns.servers, dns.search, dns.options],
        }
        data = json.dumps(written).encode()
        partial = f"{self._members}/.{membership.container_id}.json"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
        os.replace(partial, path)

    @staticmethod
    def _files(directory: Path) -> Iterator[Path]:
        for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
            if entry.is_file(follow_symlinks=False):
                if _NAME.fullmatch(entry.name) and not entry.name.startswith("."):
                    yield Path(entry.path)
                else:  # half-written by an engine that was killed
                    os.unlink(entry.path)


def _read(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError("too long")
    read = json.loads(data)
    if not isinstance(read, dict):
        raise TypeError("not an object")
    return read
