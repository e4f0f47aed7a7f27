"""Every call of Docker's description is made on a real daemon, and every answer is held against the description."""

import base64
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from engine_api import Answer, EngineApi, frames
from served_engine import IMAGE, ServedEngine, served

pytestmark = [pytest.mark.root]

NOBODY = "nosuch0000"
DIGEST = "sha256:" + 64 * "0"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedEngine]:
    with served(tmp_path_factory.mktemp("coverage")) as engine:
        yield engine


@pytest.fixture(scope="module")
def api(engine: ServedEngine) -> EngineApi:
    return engine.api


@pytest.fixture(scope="module")
def registry(engine: ServedEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry of ours in the daemon's own network; returns its address."""
    command = ["nsenter", f"--net=/proc/{engine.pid}/ns/net", sys.executable, "-P", "-m", "classroom.cli", "registry"]
    root = tmp_path_factory.mktemp("registry")
    process = subprocess.Popen(
        [*command, "serve", "--listen", "127.0.0.1:5000", "--data-root", str(root)], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 15
    while "127.0.0.1:5000" not in engine.in_its_network("ss", "-tln"):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield "127.0.0.1:5000"
    process.terminate()
    process.wait(10)


@pytest.fixture
def call(api: EngineApi, check) -> Callable[..., Answer]:
    """Makes a call, and holds the answer against the status that is wanted and the description.

    `beyond` is for statuses that Docker's own daemon gives though its description does not tell of them.
    """

    def make(
        status: int,
        method: str,
        path: str,
        body: Any = None,
        /,
        *,
        beyond: bool = False,
        lines: bool = False,
        **query: Any,
    ) -> Answer:
        headers = {"Content-Type": "application/x-tar"} if isinstance(body, bytes) else {}
        if "/push" in path:
            headers["X-Registry-Auth"] = base64.urlsafe_b64encode(b"{}").decode()
        answer = api.request(method, path, body, headers, **query)
        assert status == answer.status, answer.body[:500]
        payload: Any = answer.body.decode("latin-1")
        if "json" in answer.headers.get("Content-Type", ""):
            payload = answer.lines() if lines else answer.json()
        if status >= 400 and method != "HEAD":
            assert isinstance(payload["message"], str)
            assert payload["message"]
        if beyond:
            with pytest.raises(AssertionError, match="has the statuses"):
                check(method, path, status, payload)
        elif lines:
            for line in payload:
                check(method, path, status, line)
        else:
            check(method, path, status, payload)
        return answer

    return make


def tar(**files: str) -> bytes:
    """A tar archive of some files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def test_system(call, api) -> None:
    assert b"OK" == call(200, "GET", "/_ping").body
    assert b"" == call(200, "HEAD", "/_ping").body
    assert "1.43" == call(200, "GET", "/version").json()["ApiVersion"]
    assert 1 <= call(200, "GET", "/info").json()["Images"]
    identifier = api.create("true")
    usage = call(200, "GET", "/system/df").json()
    assert [identifier] == [one["Id"] for one in usage["Containers"]]
    api.remove(identifier)
    call(400, "GET", "/events", filters="{")
    found = call(
        200, "GET", "/events", since=0, until=int(time.time()) + 1, lines=True, filters={"type": ["container"]}
    )
    assert ["create", "destroy"] == [one["Action"] for one in found.lines()][-2:]


def test_auth(call, registry) -> None:
    call(200, "POST", "/auth", {"username": "a", "password": "b", "serveraddress": f"http://{registry}"})
    call(500, "POST", "/auth", {"username": "a", "password": "b", "serveraddress": "http://127.0.0.1:9"})


def test_the_life_of_a_container(call, api) -> None:
    call(400, "POST", "/containers/create", {})
    call(404, "POST", "/containers/create", {"Image": "nosuch:1", "Cmd": ["true"]})
    body = {"Image": IMAGE, "Cmd": ["sh", "-c", "echo out; echo err >&2; exec sleep 100"]}
    made = call(201, "POST", "/containers/create", {**body, "HostConfig": {"NetworkMode": "none"}}, name="life").json()
    identifier = made["Id"]
    call(409, "POST", "/containers/create", body, name="life")
    of = f"/containers/{identifier}"
    call(200, "GET", f"{of}/json", size=1)
    call(404, "GET", f"/containers/{NOBODY}/json")
    call(409, "GET", f"{of}/top", beyond=True)
    call(409, "POST", f"{of}/resize", h=10, w=10, beyond=True)
    call(409, "POST", f"{of}/pause", beyond=True)
    call(409, "POST", f"{of}/kill")
    call(304, "POST", f"{of}/stop")
    call(204, "POST", f"{of}/start")
    call(304, "POST", f"{of}/start")
    call(404, "POST", f"/containers/{NOBODY}/start")
    (listed,) = call(200, "GET", "/containers/json", filters={"name": ["^/life$"]}, size=1).json()
    assert identifier == listed["Id"]
    call(400, "GET", "/containers/json", filters={"nosuch": ["x"]})
    assert "sleep 100" in str(call(200, "GET", f"{of}/top").json()["Processes"])
    call(404, "GET", f"/containers/{NOBODY}/top")
    call(200, "POST", f"{of}/resize", h=10, w=10)
    call(404, "POST", f"/containers/{NOBODY}/resize", h=10, w=10)
    call(200, "GET", f"{of}/stats", stream=0, one_shot=1)
    call(404, "GET", f"/containers/{NOBODY}/stats")
    assert 2 == len(frames(call(200, "GET", f"{of}/logs", stdout=1, stderr=1).body))
    call(400, "GET", f"{of}/logs", beyond=True)
    call(404, "GET", f"/containers/{NOBODY}/logs", stdout=1)
    call(204, "POST", f"{of}/pause")
    call(409, "POST", f"{of}/pause", beyond=True)
    call(204, "POST", f"{of}/unpause")
    for action in ("pause", "unpause", "stop", "restart", "kill"):
        call(404, "POST", f"/containers/{NOBODY}/{action}")
    call(200, "POST", f"{of}/update", {"Memory": 32 << 20, "MemorySwap": 64 << 20})
    call(404, "POST", f"/containers/{NOBODY}/update", {})
    call(400, "POST", f"{of}/update", {"Memory": "much"}, beyond=True)
    call(204, "POST", f"{of}/rename", name="life2")
    call(404, "POST", f"/containers/{NOBODY}/rename", name="life2")
    other = api.create("true", name="other")
    call(409, "POST", f"{of}/rename", name="other")
    call(204, "DELETE", f"/containers/{other}")
    call(204, "POST", f"{of}/restart", t=0)
    call(409, "DELETE", of)
    call(400, "POST", f"{of}/wait", condition="sometime")
    call(404, "POST", f"/containers/{NOBODY}/wait")
    call(400, "POST", f"{of}/kill", signal="NOSUCH", beyond=True)
    call(204, "POST", f"{of}/kill")
    assert 137 == call(200, "POST", f"{of}/wait").json()["StatusCode"]
    call(404, "DELETE", f"/containers/{NOBODY}")
    call(204, "DELETE", of)
    api.create("true")
    assert 1 == len(call(200, "POST", "/containers/prune").json()["ContainersDeleted"])


def test_the_files_of_a_container(call, api) -> None:
    identifier = api.create("true")
    of = f"/containers/{identifier}"
    call(200, "PUT", f"{of}/archive", tar(hello="there"), path="/root")
    call(400, "PUT", f"{of}/archive", b"no archive at all" * 100, path="/root")
    call(404, "PUT", f"{of}/archive", tar(hello="there"), path="/nosuch")
    call(400, "PUT", f"{of}/archive", tar(hello="there"))
    locked = api.create("true", host={"ReadonlyRootfs": True})
    call(403, "PUT", f"/containers/{locked}/archive", tar(hello="there"), path="/root")
    status = call(200, "HEAD", f"{of}/archive", path="/root/hello").headers["X-Docker-Container-Path-Stat"]
    assert ("hello", 5) == tuple(json.loads(base64.b64decode(status))[name] for name in ("name", "size"))
    for method in ("HEAD", "GET"):
        call(404, method, f"{of}/archive", path="/nosuch")
        call(400, method, f"{of}/archive")
        call(404, method, f"/containers/{NOBODY}/archive", path="/")
    with tarfile.open(fileobj=io.BytesIO(call(200, "GET", f"{of}/archive", path="/root/hello").body)) as archive:
        assert ["hello"] == archive.getnames()
    changed = call(200, "GET", f"{of}/changes").json()
    assert [{"Path": "/root", "Kind": 0}, {"Path": "/root/hello", "Kind": 1}] == changed
    call(404, "GET", f"/containers/{NOBODY}/changes")
    with tarfile.open(fileobj=io.BytesIO(call(200, "GET", f"{of}/export").body)) as archive:
        assert "root/hello" in archive.getnames()
    call(404, "GET", f"/containers/{NOBODY}/export")
    call(201, "POST", "/commit", {}, container=identifier, repo="committed", tag="1")
    call(404, "POST", "/commit", {}, container=NOBODY)
    for one in (identifier, locked):
        api.remove(one)
    call(200, "DELETE", "/images/committed:1")


def test_programs_in_a_container(call, api) -> None:
    call(404, "POST", f"/containers/{NOBODY}/exec", {"Cmd": ["true"]})
    idle = api.create("true")
    call(409, "POST", f"/containers/{idle}/exec", {"Cmd": ["true"]})
    identifier = api.run("sleep", "100")
    call(400, "POST", f"/containers/{identifier}/exec", {"Cmd": []}, beyond=True)
    made = call(201, "POST", f"/containers/{identifier}/exec", {"Cmd": ["sleep", "50"], "Tty": True}).json()["Id"]
    call(200, "POST", f"/exec/{made}/start", {"Detach": True})
    call(409, "POST", f"/exec/{made}/start", {"Detach": True})
    call(404, "POST", f"/exec/{NOBODY}/start", {"Detach": True})
    call(200, "POST", f"/exec/{made}/resize", h=20, w=30)
    call(400, "POST", f"/exec/{made}/resize", h="high", w=30)
    call(404, "POST", f"/exec/{NOBODY}/resize", h=20, w=30)
    assert call(200, "GET", f"/exec/{made}/json").json()["Running"]
    call(404, "GET", f"/exec/{NOBODY}/json")
    for one in (idle, identifier):
        api.remove(one)


def test_raw_streams(call, api, check) -> None:
    for path, method in ((f"/containers/{NOBODY}/attach", "POST"), (f"/containers/{NOBODY}/attach/ws", "GET")):
        call(404, method, path)
    identifier = api.run("sh", "-c", "read line; echo got $line", OpenStdin=True, StdinOnce=True)
    call(400, "POST", f"/containers/{identifier}/attach")
    with api.upgrade(f"/containers/{identifier}/attach", stream=1, stdin=1, stdout=1) as stream:
        check("POST", f"/containers/{identifier}/attach", stream.status)
        stream.send(b"me\n")
        assert [(1, b"got me\n")] == frames(stream.all())
    api.remove(identifier)
    identifier = api.run("sleep", "100")
    key = base64.b64encode(os.urandom(16)).decode()
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": key, "Sec-WebSocket-Version": "13"}
    path = f"/containers/{identifier}/attach/ws"
    with api.stream("GET", path, b"", headers, stream=1, stdout=1) as stream:
        check("GET", path, stream.status)
    api.remove(identifier)


def test_images(call, api, registry) -> None:
    assert 1 <= len(call(200, "GET", "/images/json", **{"shared-size": 1}).json())
    call(200, "GET", f"/images/{IMAGE}/json")
    call(200, "GET", f"/images/{IMAGE}/history")
    for path in ("json", "history"):
        call(404, "GET", f"/images/nosuch/{path}")
    call(201, "POST", f"/images/{IMAGE}/tag", repo=f"{registry}/some/name", tag="1")
    call(400, "POST", f"/images/{IMAGE}/tag", repo="UPPER", tag="1")
    call(404, "POST", "/images/nosuch/tag", repo="a", tag="1")
    pushed = call(200, "POST", f"/images/{registry}/some/name/push", tag="1", lines=True)
    assert "digest" in pushed.body.decode()
    refused = call(200, "POST", f"/images/{registry}/nosuch/push", tag="1", lines=True)
    assert f"An image does not exist locally with the tag: {registry}/nosuch" == refused.lines()[-1]["error"]
    call(200, "GET", f"/distribution/{registry}/some/name:1/json")
    call(500, "GET", "/distribution/127.0.0.1:9/none:1/json")
    call(200, "DELETE", f"/images/{registry}/some/name:1")
    pulled = call(200, "POST", "/images/create", fromImage=f"{registry}/some/name", tag="1", lines=True)
    assert "Downloaded newer image" in pulled.body.decode() or "Image is up to date" in pulled.body.decode()
    call(404, "POST", "/images/create", fromImage=f"{registry}/nosuch", tag="1")
    call(500, "POST", "/images/create", fromImage="127.0.0.1:9/none", tag="1")
    saved = call(200, "GET", f"/images/{registry}/some/name:1/get").body
    call(200, "GET", "/images/get", names=f"{registry}/some/name:1")
    call(404, "GET", "/images/nosuch/get", beyond=True)
    assert "Loaded image" in call(200, "POST", "/images/load", saved).body.decode()
    call(404, "DELETE", "/images/nosuch")
    container = api.create("true")
    image = api.inspect(container)["Image"]
    call(409, "DELETE", f"/images/{image}")
    api.remove(container)
    call(500, "GET", "/images/search", term="busybox")  # there is no way to Docker Hub from where it runs
    call(200, "DELETE", f"/images/{registry}/some/name:1")
    call(200, "POST", "/images/prune")


def test_builds(call) -> None:
    built = call(200, "POST", "/build", tar(Dockerfile=f"FROM {IMAGE}\nLABEL a=b\n"), t="built:1", lines=True)
    assert "Successfully tagged built:1" in built.body.decode()
    call(400, "POST", "/build", tar(Dockerfile="FROM"), t="built:1")
    call(200, "POST", "/build/prune")
    call(200, "DELETE", "/images/built:1")


def test_volumes(call, api) -> None:
    call(201, "POST", "/volumes/create", {"Name": "kept", "Labels": {"a": "b"}})
    call(400, "POST", "/volumes/create", {"Name": "/"}, beyond=True)
    assert ["kept"] == [one["Name"] for one in call(200, "GET", "/volumes").json()["Volumes"]]
    call(200, "GET", "/volumes/kept")
    call(404, "GET", "/volumes/nosuch")
    call(503, "PUT", "/volumes/kept", {"Spec": {}}, version=1)
    user = api.create("true", host={"Binds": ["kept:/data"]})
    call(409, "DELETE", "/volumes/kept")
    api.remove(user)
    call(404, "DELETE", "/volumes/nosuch")
    call(200, "POST", "/volumes/prune")
    call(204, "DELETE", "/volumes/kept")


def test_networks(call, api) -> None:
    made = call(201, "POST", "/networks/create", {"Name": "own", "CheckDuplicate": True}).json()["Id"]
    call(404, "POST", "/networks/create", {"Name": "other", "Driver": "nosuch"})
    call(500, "POST", "/networks/create", {"Name": "other", "IPAM": {"Config": [{"Subnet": "none"}]}})
    call(403, "POST", "/networks/create", {"Name": "bridge"})
    assert {"own", "bridge", "host", "none"} == {one["Name"] for one in call(200, "GET", "/networks").json()}
    identifier = api.run("sleep", "100", host={"NetworkMode": "own"})
    shown = call(200, "GET", f"/networks/{made}", verbose=1).json()
    assert [identifier] == list(shown["Containers"])
    call(404, "GET", f"/networks/{NOBODY}")
    call(403, "DELETE", "/networks/own")
    call(403, "DELETE", "/networks/bridge")
    call(200, "POST", "/networks/bridge/connect", {"Container": identifier})
    call(403, "POST", "/networks/bridge/connect", {"Container": identifier})
    call(400, "POST", "/networks/host/connect", {"Container": identifier}, beyond=True)
    call(400, "POST", "/networks/none/connect", {"Container": identifier}, beyond=True)
    call(404, "POST", f"/networks/{NOBODY}/connect", {"Container": identifier})
    call(200, "POST", "/networks/own/disconnect", {"Container": identifier})
    call(500, "POST", "/networks/own/disconnect", {"Container": identifier})
    call(404, "POST", f"/networks/{NOBODY}/disconnect", {"Container": identifier})
    api.remove(identifier)
    call(204, "DELETE", "/networks/own")
    call(404, "DELETE", "/networks/own")
    call(201, "POST", "/networks/create", {"Name": "unused"})
    assert ["unused"] == call(200, "POST", "/networks/prune").json()["NetworksDeleted"]


PLUGINS = [
    (200, "GET", "/plugins", None, {}),
    (404, "GET", "/plugins/nosuch/json", None, {}),
    (404, "DELETE", "/plugins/nosuch", None, {}),
    (404, "POST", "/plugins/nosuch/enable", None, {}),
    (404, "POST", "/plugins/nosuch/disable", None, {}),
    (404, "POST", "/plugins/nosuch/push", None, {}),
    (404, "POST", "/plugins/nosuch/set", [], {}),
    (404, "POST", "/plugins/nosuch/upgrade", [], {"remote": "a/b"}),
    # Plugins run beside this engine and have a socket; nothing is pulled, and none is made here.
    (404, "GET", "/plugins/privileges", None, {"remote": "127.0.0.1:9/a", "beyond": True}),
    (404, "POST", "/plugins/pull", [], {"remote": "127.0.0.1:9/a", "beyond": True}),
    (501, "POST", "/plugins/create", b"", {"name": "a", "beyond": True}),
]


@pytest.mark.parametrize(("status", "method", "path", "body", "query"), PLUGINS, ids=lambda value: str(value)[:30])
def test_plugins(call, status, method, path, body, query) -> None:
    call(status, method, path, body, **query)


SPEC = {"Name": "a"}
SWARM = [
    *((503, "GET", f"/{kind}", None) for kind in ("nodes", "swarm", "services", "tasks", "secrets", "configs")),
    *((503, "GET", f"/{kind}/x", None) for kind in ("nodes", "services", "tasks", "secrets", "configs")),
    *((503, "DELETE", f"/{kind}/x", None) for kind in ("nodes", "services", "secrets", "configs")),
    *((503, "POST", f"/{kind}/create", SPEC) for kind in ("services", "secrets", "configs")),
    *((503, "POST", f"/{kind}/x/update", SPEC) for kind in ("nodes", "services", "secrets", "configs")),
    *((503, "GET", f"/{kind}/x/logs", None) for kind in ("services", "tasks")),
    *((503, "POST", f"/swarm/{verb}", {}) for verb in ("leave", "update", "unlock")),
    (503, "GET", "/swarm/unlockkey", None),
]


@pytest.mark.parametrize(("status", "method", "path", "body"), SWARM, ids=lambda value: str(value)[:30])
def test_a_daemon_that_is_in_no_swarm(call, status, method, path, body) -> None:
    query = {"version": 1} if path.endswith("/update") else {"stdout": 1} if path.endswith("/logs") else {}
    call(status, method, path, body, **query)


@pytest.mark.parametrize("verb", ["init", "join"])
def test_there_is_no_swarm_to_begin_or_join(call, verb) -> None:
    assert "has no swarm" in call(501, "POST", f"/swarm/{verb}", {}, beyond=True).message


def test_the_session_of_buildkit_is_not_spoken(call) -> None:
    call(400, "POST", "/session")


def test_no_call_of_the_description_is_left_out(api, description) -> None:
    """The last in this file: it looks at what the others have asked for."""
    called = {(method, description.template(method, path)) for method, path, _ in api.heard}
    assert [] == sorted(set(description.operations()) - called)
