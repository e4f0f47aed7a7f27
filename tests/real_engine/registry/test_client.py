"""The client against our own registry, through servers that fail, redirect, and want tokens."""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from front import Front
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.errors import EngineError
from real_engine.http import Request, Response, Server
from real_engine.http.listeners import TcpListener
from real_engine.registry import download, media_types
from real_engine.registry.authentication import Authenticator, NoCredentials, parse_challenges
from real_engine.registry.client import RegistryClient, RegistryLoginError
from real_engine.registry.credentials import Credentials
from real_engine.registry.download import Download
from real_engine.registry.errors import RegistryError
from real_engine.registry.manifests import Descriptor
from real_engine.registry.names import Digest, parse_digest, sha256
from real_engine.registry.passwords import Passwords, hash_password
from real_engine.registry.transport import Cancelled, Transport, Unreachable

CONTENT = bytes(range(256)) * 4096  # 1 MiB


def _descriptor(content: bytes, size: int | None = None) -> Descriptor:
    return Descriptor(media_types.OCI_LAYER, sha256(content), len(content) if size is None else size)


def _read(source: Download) -> bytes:
    content = bytearray()
    buffer = memoryview(bytearray(10_000))
    with source:
        while count := source.readinto(buffer):
            content += buffer[:count]
    return bytes(content)


def test_round_trip(serving: Any) -> None:
    client = RegistryClient(serving.host)
    digest = str(sha256(CONTENT))
    gone: list[int] = []
    assert not client.has_blob("me/app", digest)
    assert not client.upload_blob("me/app", digest, len(CONTENT), lambda: io.BytesIO(CONTENT), gone.append)
    assert len(CONTENT) == gone[-1]
    assert client.has_blob("me/app", digest)
    assert client.upload_blob("you/app", digest, len(CONTENT), lambda: io.BytesIO(CONTENT), mount_from="me/app")
    assert CONTENT == _read(Download(client, "you/app", _descriptor(CONTENT)))
    fields = serving.client.image("me/app")
    content = json.dumps(fields).encode()
    pushed = client.put_manifest("me/app", "1", content, media_types.OCI_MANIFEST)
    found, manifest = client.manifest("me/app", "1")
    assert (pushed, content) == (found, manifest.content)
    assert (pushed, media_types.OCI_MANIFEST, len(content)) == client.resolve("me/app", "1")
    assert ["1"] == client.tags("me/app")
    client.delete_manifest("me/app", "1")
    with pytest.raises(RegistryError, match=r"^manifest unknown: manifest unknown$"):
        client.manifest("me/app", "1")
    assert client.resolve("me/app", "1") is None


def test_connections_are_reused(serving: Any, front: Front) -> None:
    peers = set()

    def handle(request: Request) -> Response | None:
        peers.add(request.peer.address)
        return serving.registry(request)  # type: ignore[no-any-return]

    host = front(handle)
    client = RegistryClient(host)
    serving.client.put_image("me/app", "1")
    for _ in range(5):
        client.manifest("me/app", "1")
    assert 1 == len(peers)
    # A connection that the server has closed meanwhile is no error.
    for connection in client.transport._idle["http", host]:
        connection.sock.shutdown(2)
    assert client.manifest("me/app", "1")
    assert 2 == len(peers)


def _cutting(registry: Any, after: int, times: int) -> Callable[[Request], Response | None]:
    """Cuts the connection `times` times, each time after so many bytes of a blob."""
    left = [times]
    asked: list[str] = []

    def handle(request: Request) -> Response | None:
        response: Response = registry(request)
        if request.method == "GET" and "/blobs/" in request.path and left[0]:
            asked.append(request.headers.get("Range"))
            left[0] -= 1
            file: Any = response.body

            def part() -> Iterator[bytes]:
                yield file.read(after)
                raise ConnectionResetError

            return Response(response.status, part(), response.headers)
        return response

    return handle


@pytest.mark.parametrize("times", [1, 3, 12])
def test_download_goes_on_after_cuts(serving: Any, front: Front, times: int) -> None:
    serving.client.put_blob("me/app", CONTENT)
    client = RegistryClient(front(_cutting(serving.registry, 50_000, times)))
    retried: list[float] = []
    source = Download(client, "me/app", _descriptor(CONTENT), on_retry=retried.append)
    assert CONTENT == _read(source)
    assert times == len(retried), "as long as something comes, it is worth trying again"


def test_download_that_never_gets_on_ends(serving: Any, front: Front) -> None:
    serving.client.put_blob("me/app", CONTENT)
    client = RegistryClient(front(_cutting(serving.registry, 0, 10**6)))
    with pytest.raises(EngineError, match=r"unexpected EOF|reset"):
        _read(Download(client, "me/app", _descriptor(CONTENT)))


def test_download_from_the_middle(serving: Any, front: Front) -> None:
    serving.client.put_blob("me/app", CONTENT)
    client = RegistryClient(serving.host)
    assert CONTENT[777_777:] == _read(Download(client, "me/app", _descriptor(CONTENT), 777_777))

    def without_ranges(request: Request) -> Response | None:
        if "/blobs/" in request.path:
            return Response(200, CONTENT)
        return Response(200)

    client = RegistryClient(front(without_ranges))
    assert CONTENT[777_777:] == _read(Download(client, "me/app", _descriptor(CONTENT), 777_777))


@pytest.mark.parametrize("said", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_blob_of_another_length(serving: Any, front: Front, said: int) -> None:
    serving.client.put_blob("me/app", CONTENT)
    with pytest.raises(EngineError, match="its manifest says"):
        _read(Download(RegistryClient(serving.host), "me/app", _descriptor(CONTENT, said)))

    def unmeasured(request: Request) -> Response | None:
        return Response(200, iter([CONTENT])) if "/blobs/" in request.path else Response(200)

    if said < len(CONTENT):
        with pytest.raises(EngineError, match="longer than"):
            _read(Download(RegistryClient(front(unmeasured)), "me/app", _descriptor(CONTENT, said)))


def test_server_that_is_overloaded_for_a_while(serving: Any, front: Front) -> None:
    serving.client.put_image("me/app", "1")
    failures = [3]

    def handle(request: Request) -> Response | None:
        if "/manifests/" in request.path and failures[0]:
            failures[0] -= 1
            return Response(503)
        return serving.registry(request)  # type: ignore[no-any-return]

    host = front(handle)
    assert RegistryClient(host).manifest("me/app", "1")
    failures[0] = 10**6
    with pytest.raises(EngineError, match=r"^received unexpected HTTP status: 503 Service Unavailable$"):
        RegistryClient(host).manifest("me/app", "1")


@pytest.mark.parametrize("reference", ["tag", "digest"])
def test_manifest_that_was_tampered_with(serving: Any, front: Front, reference: str) -> None:
    digest = serving.client.put_image("me/app", "1")

    def handle(request: Request) -> Response | None:
        response: Response = serving.registry(request)
        if request.method == "GET" and "/manifests/" in request.path:
            assert isinstance(response.body, bytes)
            response.body = response.body.replace(b"layer", b"liver")
            if reference == "digest":
                response.headers.pop("Docker-Content-Digest")  # so that only what was asked for tells
        return response

    client = RegistryClient(front(handle))
    with pytest.raises(EngineError, match=rf"^manifest verification failed for digest {digest}$"):
        client.manifest("me/app", "1" if reference == "tag" else digest)


def test_manifest_without_an_end(front: Front) -> None:
    def handle(request: Request) -> Response | None:
        if "/manifests/" in request.path:
            return Response(200, iter([b" " * (1 << 20)] * 6))
        return Response(200)

    with pytest.raises(EngineError, match="longer than 4194304 bytes"):
        RegistryClient(front(handle)).manifest("me/app", "1")


def test_schema_1_is_refused_with_the_reason(front: Front) -> None:
    def handle(request: Request) -> Response | None:
        if "/manifests/" in request.path:
            return Response(200, b'{"schemaVersion":1}', content_type=media_types.DOCKER_SCHEMA_1[1])
        return Response(200)

    with pytest.raises(EngineError, match="schema version 1 is not supported any more"):
        RegistryClient(front(handle)).manifest("me/app", "1")


def test_redirect_does_not_carry_the_password(serving: Any, front: Front, tmp_path: Path) -> None:
    digest = serving.client.put_blob("me/app", CONTENT)
    seen: list[str] = []

    def elsewhere(request: Request) -> Response | None:
        seen.append(request.headers.get("Authorization"))
        return Response(200, CONTENT)

    other = front(elsewhere)
    users = tmp_path / "users"
    users.write_text(f"anna:{hash_password('x', cost=4)}\n")
    guarded = type(serving.registry)(serving.registry.storage, Passwords(users))

    def handle(request: Request) -> Response | None:
        response: Response = guarded(request)
        if request.path.endswith(digest) and response.status == 200:
            return Response(307, headers={"Location": f"http://{other}/content"})
        return response

    client = RegistryClient(front(handle), Credentials("anna", "x"))
    assert CONTENT == _read(Download(client, "me/app", _descriptor(CONTENT)))
    assert [""] == seen


def test_redirects_in_a_circle(front: Front) -> None:
    def handle(request: Request) -> Response | None:
        if "/manifests/" in request.path:
            return Response(302, headers={"Location": request.path})
        return Response(200)

    with pytest.raises(EngineError, match="stopped after 10 redirects"):
        RegistryClient(front(handle)).manifest("me/app", "1")


# Who one is


def test_password_is_wanted(serving: Any, tmp_path: Path, serve: Any) -> None:
    users = tmp_path / "users"
    users.write_text(f"anna:{hash_password('x', cost=4)}\n")
    served = serve(tmp_path / "guarded", Passwords(users))
    url = f"http://{served.host}/v2/"
    with pytest.raises(NoCredentials, match=rf'^Head "{url}me/app/manifests/1": no basic auth credentials$'):
        RegistryClient(served.host).resolve("me/app", "1")
    with pytest.raises(RegistryError, match=r"^unauthorized: authentication required$"):
        RegistryClient(served.host, Credentials("anna", "y")).tags("me/app")
    with pytest.raises(RegistryLoginError, match=rf"^login attempt to {url} failed with status: 401 Unauthorized$"):
        RegistryClient(served.host, Credentials("anna", "y")).login()
    right = RegistryClient(served.host, Credentials("anna", "x"))
    assert "" == right.login()
    assert not right.has_blob("me/app", str(sha256(b"")))


class TokenServer:
    """A registry that wants tokens, and the server that gives them."""

    def __init__(self, registry: Any) -> None:
        self.registry = registry
        self.asked: list[dict[str, list[str]]] = []
        self.given: set[str] = set()
        self.host = ""

    def __call__(self, request: Request) -> Response | None:
        if request.path == "/token":
            return self._token(request)
        token = request.headers.get("Authorization").removeprefix("Bearer ")
        if token not in self.given:
            challenge = f'Bearer realm="http://{self.host}/token",service="us",scope="repository:x:pull"'
            return Response.json({"errors": []}, 401, {"WWW-Authenticate": challenge})
        return self.registry(request)  # type: ignore[no-any-return]

    def _token(self, request: Request) -> Response:
        if request.method == "POST":
            fields = parse_qs(request.read_all().decode())
            right = fields["refresh_token"] == ["for ever"] and fields["grant_type"] == ["refresh_token"]
        else:
            fields = parse_qs(request.query_text)
            user = base64.b64encode(b"anna:x").decode()
            right = request.headers.get("Authorization") in ("", f"Basic {user}")
        if not right:
            return Response.json({"details": "incorrect username or password"}, 401)
        self.asked.append(fields)
        token = f"token {len(self.asked)}"
        self.given.add(token)
        answer = {"access_token" if request.method == "POST" else "token": token, "expires_in": 300}
        return Response.json(answer | ({"refresh_token": "for ever"} if "offline_token" in fields else {}))


@pytest.fixture
def tokens(serving: Any, front: Front) -> TokenServer:
    server = TokenServer(serving.registry)
    server.host = front(server)
    return server


@pytest.mark.parametrize("who", [Credentials(), Credentials("anna", "x"), Credentials(identity_token="for ever")])
def test_token_is_fetched_once(serving: Any, tokens: TokenServer, who: Credentials) -> None:
    serving.client.put_image("me/app", "1")
    client = RegistryClient(tokens.host, who)
    for _ in range(3):
        assert client.manifest("me/app", "1")
    [asked] = tokens.asked
    assert (["us"], ["repository:me/app:pull"]) == (asked["service"], asked["scope"])
    tokens.given.clear()  # it has been revoked, or the clocks differ
    assert client.manifest("me/app", "1")
    assert 2 == len(tokens.asked)


def test_token_for_a_mount_is_good_for_both(serving: Any, tokens: TokenServer) -> None:
    digest = serving.client.put_blob("me/app", CONTENT)
    client = RegistryClient(tokens.host, Credentials("anna", "x"))
    assert client.upload_blob("you/app", digest, len(CONTENT), lambda: io.BytesIO(CONTENT), mount_from="me/app")
    assert ["repository:you/app:pull,push", "repository:me/app:pull"] == tokens.asked[0]["scope"]


def test_login_with_tokens(tokens: TokenServer) -> None:
    assert "for ever" == RegistryClient(tokens.host, Credentials("anna", "x"), offline=True).login()
    with pytest.raises(RegistryLoginError, match=r'^Get ".*/v2/": unauthorized: incorrect username or password$'):
        RegistryClient(tokens.host, Credentials("anna", "y")).login()


def test_denied_by_its_scope(front: Front) -> None:
    def handle(request: Request) -> Response | None:
        if request.path == "/v2/":
            return Response(200)
        return Response(401, headers={"WWW-Authenticate": 'Bearer realm="x",error="insufficient_scope"'})

    client = RegistryClient(front(handle), Credentials(registry_token="mine"))
    with pytest.raises(RegistryError, match=r"^denied: requested access to the resource is denied$"):
        client.manifest("me/app", "1")


def test_password_does_not_leave_tls(tokens: TokenServer) -> None:
    authenticator = Authenticator(Transport(), Credentials("anna", "x"))
    authenticator.learn([f'Bearer realm="http://{tokens.host}/token"'])
    assert authenticator.headers(())
    authenticator.only_tls = True
    with pytest.raises(EngineError, match="no password is sent in the clear"):
        authenticator.headers(("repository:me/app:pull",))
    nobody = Authenticator(Transport(), Credentials())
    nobody.learn([f'Bearer realm="http://{tokens.host}/token"'])
    nobody.only_tls = True
    assert nobody.headers(()), "who has no password has nothing to hide"


def test_challenges_as_servers_write_them() -> None:
    text = 'Basic realm="a \\"b\\", c", Bearer realm="https://x/t?a=b",service=y , scope="repository:a:pull,push"'
    basic, bearer = parse_challenges([text])
    assert ("basic", {"realm": 'a "b", c'}) == (basic.scheme, basic.parameters)
    expected = {"realm": "https://x/t?a=b", "service": "y", "scope": "repository:a:pull,push"}
    assert ("bearer", expected) == (bearer.scheme, bearer.parameters)
    assert ["negotiate", "basic"] == [one.scheme for one in parse_challenges(["Negotiate", "BASIC"])]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_challenge_can_be_read(text: str) -> None:
    for challenge in parse_challenges([text]):
        assert challenge.scheme == challenge.scheme.lower()


# Where it is


def test_nobody_listens() -> None:
    listener = TcpListener("127.0.0.1", 0)
    listener.close()
    url = f"http://127.0.0.1:{listener.port}/v2/"
    reason = f"dial tcp 127.0.0.1:{listener.port}: connect: connection refused"
    with pytest.raises(Unreachable) as caught:
        RegistryClient(f"127.0.0.1:{listener.port}").ping()
    assert f'Get "{url}": {reason}' == str(caught.value)


def test_host_without_an_address() -> None:
    with pytest.raises(Unreachable, match=r'^Get "https://nowhere\.invalid/v2/": dial tcp: lookup nowhere\.invalid'):
        RegistryClient("nowhere.invalid").ping()


def test_no_name_server_can_have_docker_hub_spoken_to_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    def lies(*_: object, **__: object) -> list[object]:
        return [(2, 1, 6, "", ("127.0.0.1", 0)), (2, 1, 6, "", ("192.0.2.1", 0))]

    monkeypatch.setattr("socket.getaddrinfo", lies)
    assert ["https://registry-1.docker.io"] == RegistryClient("docker.io")._bases()
    listed = RegistryClient("docker.io", insecure_registries=("registry-1.docker.io",))._bases()
    assert ["https://registry-1.docker.io", "http://registry-1.docker.io"] == listed


def test_no_name_server_makes_a_host_of_this_machine_by_an_address_more(monkeypatch: pytest.MonkeyPatch) -> None:
    here, elsewhere = (2, 1, 6, "", ("127.0.0.1", 0)), (2, 1, 6, "", ("192.0.2.1", 0))
    for answer, count in (([here, elsewhere], 1), ([here], 2), ([elsewhere], 1)):
        monkeypatch.setattr("socket.getaddrinfo", lambda *_, answer=answer, **__: answer)
        assert count == len(RegistryClient("registry.example")._bases())  # without TLS too, or with it alone


@pytest.mark.parametrize(
    ("host", "insecure"),
    [
        ("127.0.0.1:5000", True),
        ("localhost:5000", True),
        ("[::1]:5000", True),
        ("10.1.2.3:5000", True),
        ("10.9.2.3:5000", False),
        ("registry.example:5000", True),
        ("registry.example:5001", False),
        ("other.example:1", True),
    ],
)
def test_who_may_do_without_tls(host: str, insecure: bool) -> None:
    known = ("10.1.0.0/16", "registry.example:5000", "other.example")
    bases = RegistryClient(host, insecure_registries=known)._bases()
    assert [f"https://{host}", *([f"http://{host}"] if insecure else [])] == bases


def test_tls_with_an_authority_that_nobody_knows(serving: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    from real_engine.http.tls import server_context

    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    arguments = ["-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(["openssl", "req", *arguments, *names], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs openssl, to make a certificate")
    listener = TcpListener("127.0.0.1", 0, server_context(certificate, key))
    server = Server(serving.registry, [listener])
    server.start()
    try:
        host = f"localhost:{listener.port}"
        assert f"https://{host}" == RegistryClient(host).ping(), "a registry on this machine may show any certificate"
        monkeypatch.setattr(RegistryClient, "_is_insecure", lambda self, netloc: False)
        with pytest.raises(Unreachable, match="x509: certificate signed by unknown authority"):
            RegistryClient(host).ping()
        trusted = tmp_path / host
        trusted.mkdir()
        certificate.rename(trusted / "ca.crt")
        monkeypatch.setattr("real_engine.registry.transport.CERTIFICATES", tmp_path)
        assert f"https://{host}" == RegistryClient(host).ping()
    finally:
        server.stop(1.0)


def test_plain_answer_to_tls(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RegistryClient, "_is_insecure", lambda self, netloc: False)
    with pytest.raises(Unreachable, match="server gave HTTP response to HTTPS client"):
        RegistryClient(serving.host).ping()


def test_cancelling_wakes_who_waits(front: Front) -> None:
    ended = threading.Event()

    def handle(request: Request) -> Response | None:
        if "/blobs/" in request.path:
            ended.wait(10)
        return Response(200)

    client = RegistryClient(front(handle))
    caught: list[BaseException] = []

    def read() -> None:
        try:
            _read(Download(client, "me/app", _descriptor(CONTENT)))
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    threading.Event().wait(0.1)
    client.transport.abort()
    thread.join(2)
    ended.set()
    assert not thread.is_alive()
    assert [Cancelled] == [type(error) for error in caught]
    with pytest.raises(Cancelled):
        client.tags("me/app")


def test_search(front: Front) -> None:
    found = {"name": "busybox", "description": "", "star_count": 3, "is_official": True, "is_automated": False}

    def handle(request: Request) -> Response | None:
        if request.path == "/v1/search":
            assert ("busy", "7") == (request.query.get("q"), request.query.get("n"))
            return Response.json({"results": [found]})
        return Response(200)

    assert [found] == RegistryClient(front(handle)).search("busy", 7)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80))
def test_digest_is_read_or_not(text: str) -> None:
    digest = parse_digest(text)
    assert digest is None or str(digest) == text


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=64))
def test_digest_of_content(content: bytes) -> None:
    digest = sha256(content)
    assert digest.matches(content)
    assert not digest.matches(content + b"x")
    assert digest == parse_digest(str(digest))
    assert isinstance(digest, Digest)


def test_attempts_are_a_few() -> None:
    assert 1 < download.ATTEMPTS < 10
