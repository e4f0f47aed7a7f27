"""A host of the tests' own: a network namespace in which the test runs, so that the machine's rules stay untouched."""

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from real_engine.linux.network_namespaces import create_network_namespace, entered, write_setting
from real_engine.networks import EndpointRequest, Networks

Container = tuple[str, int]


@pytest.fixture
def host() -> Iterator[int]:
    """The test and all threads and programs that it starts are in a network namespace of their own."""
    namespace = create_network_namespace()
    try:
        with entered(namespace):
            write_setting("net/ipv6/conf/all/disable_ipv6", "0")
            yield namespace
    finally:
        os.close(namespace)


@pytest.fixture
def networks(host: int, tmp_path: Path) -> Iterator[Networks]:
    if shutil.which("nft") is None:
        pytest.skip("no program nft")
    made = Networks(tmp_path)
    yield made
    made.close()


class Containers:
    """Network namespaces that stand for containers."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self._namespaces: list[int] = []
        self._sockets: list[socket.socket] = []

    def start(self, name: str, *networks: str, **request: object) -> Container:
        """An id, and a namespace that has been connected to `networks`."""
        identifier = name.encode().hex().ljust(64, "0")
        namespace = self.networks.take_namespace()
        self._namespaces.append(namespace)
        for network in networks:
            self.networks.connect(
                network,
                identifier,
                namespace,
                EndpointRequest(container_name=name, **request),  # type: ignore[arg-type]
            )
        return identifier, namespace

    def serve(self, container: Container, port: int, kind: int = socket.SOCK_STREAM) -> None:
        """A server in a container that tells each client its own address, over IPv4 and IPv6."""
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            with entered(container[1]):
                server = socket.socket(family, kind)
            if family == socket.AF_INET6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            server.bind((address, port))
            if kind == socket.SOCK_STREAM:
                server.listen(16)
            self._sockets.append(server)
            threading.Thread(target=_serve, args=(server,), daemon=True).start()

    def close(self) -> None:
        for server in self._sockets:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        for namespace in self._namespaces:
            os.close(namespace)


def _serve(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            if server.type == socket.SOCK_DGRAM:
                data, client = server.recvfrom(65535)
                if not data:
                    return
                server.sendto(client[0].encode(), client)
            else:
                connection, client = server.accept()
                connection.sendall(client[0].encode())
                connection.close()


@pytest.fixture
def containers_of() -> Iterator[Callable[[Networks], Containers]]:
    """Makes containers for an engine of the test's own."""
    made: list[Containers] = []

    def make(networks: Networks) -> Containers:
        made.append(Containers(networks))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def containers(networks: Networks) -> Iterator[Containers]:
    made = Containers(networks)
    yield made
    made.close()


@pytest.fixture
def ask() -> Callable[..., str]:
    """What a server answers a client that is in the given container, or else on the host; raises OSError if nothing."""

    def connect(address: str, port: int, frm: Container | None = None, kind: int = socket.SOCK_STREAM) -> str:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with entered(frm[1]) if frm is not None else contextlib.nullcontext():
            client = socket.socket(family, kind)
        with client:
            client.settimeout(1.0)
            client.connect((address, port))
            if kind == socket.SOCK_DGRAM:
                client.send(b"?")
            answer = client.recv(200).decode()
            if not answer:
                raise ConnectionResetError(f"{address}:{port} closed without an answer")
            return answer

    return connect


@pytest.fixture
def run(host: int) -> Callable[..., str]:
    """The output of a program in this host's namespace, or in a container's."""

    def execute(*argv: str, inside: Container | None = None, given: str = "") -> str:
        with entered(inside[1]) if inside is not None else contextlib.nullcontext():
            done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=20, check=False)
        assert 0 == done.returncode, done.stderr
        return done.stdout

    return execute
