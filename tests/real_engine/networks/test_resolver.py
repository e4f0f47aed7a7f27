"""The resolver as a container's programs meet it, and what it asks of others."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from real_engine.linux.network_namespaces import create_network_namespace, entered
from real_engine.networks import DnsOptions, Networks, NetworkSpec, messages
from real_engine.networks.resolver import Found, Resolver

pytestmark = pytest.mark.root


def question(name: str, kind: int = messages.A, identity: int = 7) -> bytes:
    return struct.pack("!6H", identity, 0x100, 1, 0, 0, 0) + messages.write_name(name) + struct.pack("!HH", kind, 1)


def by_udp(namespace: int, data: bytes, seconds: float = 5.0) -> bytes:
    with entered(namespace):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        client.settimeout(seconds)
        client.connect(("127.0.0.11", 53))
        client.send(data)
        return client.recv(65535)


def by_tcp(namespace: int, *questions: bytes) -> list[bytes]:
    with entered(namespace):
        client = socket.socket()
    with client:
        client.settimeout(5.0)
        client.connect(("127.0.0.11", 53))
        client.sendall(b"".join(struct.pack("!H", len(each)) + each for each in questions))
        stream = client.makefile("rb")
        return [stream.read(int.from_bytes(stream.read(2), "big")) for _ in questions]


def outcome(answer: bytes) -> tuple[int, int, int]:
    """Code, number of records, whether it was cut."""
    _, flags, _, count, *_ = struct.unpack_from("!6H", answer)
    return flags & 0xF, count, flags >> 9 & 1


@dataclass
class Book:
    """Names for the tests."""

    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    servers: tuple[str, ...] = ()

    def find(self, container_id: str, name: str, version: int) -> Found | None:
        found = self.names.get(name)
        return None if found is None else Found(tuple(each for each in found if (":" in each) == (version == 6)))

    def find_address(self, container_id: str, address: str) -> Found | None:
        return next((Found(name=f"{name}.n1") for name, each in self.names.items() if address in each), None)

    def upstreams(self, container_id: str) -> tuple[str, ...]:
        return self.servers


@pytest.fixture
def served(host: int) -> Iterator[tuple[Book, int]]:
    book, namespace = Book({"web": ("10.0.0.1", "10.0.0.2"), "many": tuple(f"10.0.1.{n}" for n in range(100))}), 0
    resolver = Resolver(book)
    namespace = create_network_namespace()
    resolver.add("c1", namespace)
    yield book, namespace
    resolver.close()
    with entered(namespace):
        pass


def test_what_it_knows(served: tuple[Book, int]) -> None:
    _, namespace = served
    assert (0, 2, 0) == outcome(by_udp(namespace, question("web")))
    assert (0, 2, 0) == outcome(by_udp(namespace, question("WEB")))
    assert (0, 0, 0) == outcome(by_udp(namespace, question("web", messages.AAAA)))  # it is there, without one
    assert (0, 0, 0) == outcome(by_udp(namespace, question("web", 15)))
    assert (0, 1, 0) == outcome(by_udp(namespace, question("2.0.0.10.in-addr.arpa", messages.PTR)))
    code, count, cut = outcome(by_udp(namespace, question("many")))
    assert (0, 1) == (code, cut)
    assert 0 < count < 100
    assert [(0, 100, 0), (0, 2, 0)] == list(map(outcome, by_tcp(namespace, question("many"), question("web"))))


def test_what_it_cannot_answer(served: tuple[Book, int]) -> None:
    _, namespace = served
    assert 2 == outcome(by_udp(namespace, question("unknown")))[0]  # nobody may be asked
    assert 1 == outcome(by_udp(namespace, question("web")[:-3]))[0]
    assert 4 == outcome(by_udp(namespace, question("web")[:2] + b"\x28\x00" + question("web")[4:]))[0]
    with pytest.raises(TimeoutError):
        by_udp(namespace, b"\0\x07\x80\0" + bytes(8), seconds=0.3)  # an answer gets none


def test_who_takes_no_answers_gets_no_more_of_them(served: tuple[Book, int]) -> None:
    book, namespace = served
    asked: list[str] = []
    book.names["big"] = tuple(f"10.1.{n // 250}.{n % 250}" for n in range(3000))  # 48 kB an answer
    found = book.find
    book.find = lambda *arguments: asked.append(arguments[1]) or found(*arguments)  # type: ignore[method-assign,func-returns-value]
    with entered(namespace):
        client = socket.socket()
    with client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        client.settimeout(5.0)
        client.connect(("127.0.0.11", 53))
        one = struct.pack("!H", len(question("big"))) + question("big")
        client.sendall(one * 1000)
        time.sleep(0.5)
        assert 0 < len(asked) < 200  # and not 48 MB that wait for him
        assert (0, 2, 0) == outcome(by_udp(namespace, question("web")))
        stream = client.makefile("rb")
        taken = [outcome(stream.read(int.from_bytes(stream.read(2), "big"))) for _ in range(300)]
        assert [(0, 3000, 0)] * 300 == taken  # as he takes them, the others come


def test_a_server_in_the_container_may_have_port_53(served: tuple[Book, int]) -> None:
    _, namespace = served
    with entered(namespace):
        own, own_tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
    own.bind(("0.0.0.0", 53))
    own_tcp.bind(("0.0.0.0", 53))
    own_tcp.listen()
    assert (0, 2, 0) == outcome(by_udp(namespace, question("web")))
    assert [(0, 2, 0)] == list(map(outcome, by_tcp(namespace, question("web"))))
    own.close()
    own_tcp.close()


class Upstream:
    """A name server on this host that does what it is told with each question."""

    def __init__(self, address: str, answer: Callable[[bytes], list[bytes]]) -> None:
        self.asked: list[bytes] = []
        self._answer = answer
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((address, 53))
        self._tcp = socket.create_server((address, 53))
        for target in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=target, daemon=True).start()

    def _serve_udp(self) -> None:
        while True:
            data, client = self._udp.recvfrom(65535)
            if not data:
                return
            self.asked.append(data)
            for each in self._answer(data):
                self._udp.sendto(each, client)

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                data = stream.read(int.from_bytes(stream.read(2), "big"))
                for each in self._answer(data):
                    whole = struct.pack("!H", len(each)) + each
                    connection.sendall(whole[:5])  # in pieces, as TCP may
                    connection.sendall(whole[5:])

    def close(self) -> None:
        self._udp.sendto(b"", self._udp.getsockname())
        self._tcp.shutdown(socket.SHUT_RDWR)
        self._udp.close()
        self._tcp.close()


@pytest.fixture
def upstream(host: int) -> Iterator[Callable[..., Upstream]]:
    made: list[Upstream] = []

    def make(address: str, answer: Callable[[bytes], list[bytes]]) -> Upstream:
        made.append(Upstream(address, answer))
        return made[-1]

    yield make
    for each in made:
        each.close()


def good(data: bytes) -> list[bytes]:
    return [messages.addresses(messages.read_query(data), ["192.0.2.80"], 65535)]


def test_other_names_are_asked_of_others(served: tuple[Book, int], upstream: Callable[..., Upstream]) -> None:
    book, namespace = served
    server = upstream("127.0.0.2", good)
    book.servers = ("127.0.0.2",)
    answer = by_udp(namespace, question("example.org"))
    assert (b"\0\x07", (0, 1, 0)) == (answer[:2], outcome(answer))
    assert question("example.org")[2:] == server.asked[0][2:]  # as it came, but for the id
    assert [(0, 1, 0)] == list(map(outcome, by_tcp(namespace, question("example.org"))))
    (edns,) = [question("x.org")[:10] + b"\0\x01" + question("x.org")[12:] + b"\0\0\x29\x04\xd0" + bytes(6)]
    assert 0 == outcome(by_udp(namespace, edns))[0]
    assert edns[2:] == server.asked[-1][2:]


def test_a_server_that_is_silent_or_lies_is_passed_over(
    served: tuple[Book, int], upstream: Callable[..., Upstream]
) -> None:
    book, namespace = served

    def lie(data: bytes) -> list[bytes]:
        wrong_id = messages.with_identity(good(data)[0], int.from_bytes(data[:2], "big") ^ 1)
        other = good(data[:2] + question("other.org")[2:])[0]
        return [wrong_id, other, b"", b"\0"]

    liar = upstream("127.0.0.2", lie)
    upstream("127.0.0.3", good)
    book.servers = ("127.0.0.4", "127.0.0.2", "127.0.0.3")  # nobody is at the first
    assert (0, 1, 0) == outcome(by_udp(namespace, question("example.org")))
    assert 1 == len(liar.asked)


def test_when_no_server_answers(served: tuple[Book, int]) -> None:
    book, namespace = served
    book.servers = ("127.0.0.4",)
    assert 2 == outcome(by_udp(namespace, question("example.org")))[0]
    assert [2] == [outcome(each)[0] for each in by_tcp(namespace, question("example.org"))]


def test_slow_servers_hold_nobody_up(served: tuple[Book, int], upstream: Callable[..., Upstream]) -> None:
    book, namespace = served
    upstream("127.0.0.2", lambda _: [])
    book.servers = ("127.0.0.2",)
    with entered(namespace):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.connect(("127.0.0.11", 53))
    for number in range(200):
        client.send(question(f"slow{number}.org", identity=number))
    assert (0, 2, 0) == outcome(by_udp(namespace, question("web"), seconds=1.0))
    client.close()


def test_containers_find_one_another(networks: Networks, containers: Any, run: Callable[..., str]) -> None:
    networks.create(NetworkSpec("n1", pools=({"Subnet": "10.211.1.0/24"},)))
    one, _ = containers.start("one", "n1", aliases=("web",)), containers.start("two", "n1", aliases=("web",))
    default = containers.start("three", "bridge")
    for name, address in (("two", "10.211.1.3"), ("two.n1", "10.211.1.3"), ("one", "10.211.1.2")):
        assert address in run("busybox", "nslookup", "-type=a", name, "127.0.0.11", inside=one)
    assert {"10.211.1.2", "10.211.1.3"} <= set(
        run("busybox", "nslookup", "-type=a", "web", "127.0.0.11", inside=one).split()
    )
    networks.rename(one[0], "uno")
    assert "10.211.1.2" in run("busybox", "nslookup", "-type=a", "uno", "127.0.0.11", inside=one)
    with pytest.raises(ConnectionRefusedError):
        by_udp(default[1], question("one"))  # the default network has no names
    networks.connect("n1", default[0], default[1], dns=DnsOptions(("127.0.0.9",)))
    assert (0, 1, 0) == outcome(by_udp(default[1], question("uno")))
    assert 2 == outcome(by_udp(default[1], question("elsewhere.org")))[0]
    networks.disconnect(networks.endpoints_of(default[0])[1])
    with pytest.raises(ConnectionRefusedError):
        by_udp(default[1], question("uno"))
    assert "" == run("nft", "list", "ruleset", inside=default)


def test_a_name_that_no_message_can_hold_does_not_end_the_resolver(served: tuple[Book, int]) -> None:
    book, namespace = served
    book.names["x" * 70] = ("10.0.0.9",)  # a container's name may be as long as one likes
    answer = by_udp(namespace, question("9.0.0.10.in-addr.arpa", messages.PTR))
    assert (messages.SERVER_FAILURE, 0, 0) == outcome(answer)
    assert (messages.NO_ERROR, 2, 0) == outcome(by_udp(namespace, question("web")))


def test_one_container_leaves_room_for_the_questions_of_others(host: int) -> None:
    resolver = Resolver(Book({}, ("127.0.0.1",)))
    noisy, quiet = create_network_namespace(), create_network_namespace()
    with entered(noisy):
        flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked, flood:
        asked.bind(("127.0.0.1", 53))
        try:
            resolver.add("noisy", noisy)
            resolver.add("quiet", quiet)
            flood.connect(("127.0.0.11", 53))
            flood.settimeout(1.0)  # less than it waits for an answer, after which it gives up in any case
            for number in range(200):
                flood.send(question(f"n{number}.example", identity=number))
            # Of those beyond its share it is told so at once; the others wait.
            assert messages.SERVER_FAILURE == outcome(flood.recv(512))[0]
            server = threading.Thread(target=_answer_to, args=(asked, b"quiet"), daemon=True)
            server.start()
            assert messages.NO_ERROR == outcome(by_udp(quiet, question("quiet.example")))[0]
            server.join(5.0)
        finally:
            resolver.close()


def _answer_to(asked: socket.socket, name: bytes) -> None:
    """Answer the first question in which `name` is, and no other."""
    while True:
        data, client = asked.recvfrom(4096)
        if name in data:
            asked.sendto(data[:2] + b"\x81\x80" + data[4:], client)
            return
