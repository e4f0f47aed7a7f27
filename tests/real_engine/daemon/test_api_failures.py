"""What goes wrong half-way: a killed daemon, a full disk, and many clients at once. Nothing is left behind by it."""

import contextlib
import http.client
import io
import os
import random
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_api import EngineApi
from served_engine import IMAGE, ServedEngine, served

pytestmark = [pytest.mark.root]

NOTHING_LEFT = {
    "containers": [],
    "tmp": [],
    "builds": [],
    "partial layers": [],
    "partial blobs": [],
    "mounts": [],
    "veths": [],
    "cgroups": [],
}


def _settled(engine: ServedEngine, wanted: dict[str, list[str]], seconds: float = 15.0) -> None:
    """Wait until no more is left than `wanted`: what is removed goes away behind the client's back."""
    deadline = time.monotonic() + seconds
    while wanted != engine.left() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert wanted == engine.left()


def _tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _quietly(action: Callable[[], object]) -> threading.Thread:
    """Do it in a thread of its own; its daemon is to be killed under it."""

    def run() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
            action()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def _build(api: EngineApi) -> None:
    dockerfile = f"FROM {IMAGE}\nRUN echo 1 > /a; sleep 0.2\nCOPY big /big\nRUN sleep 5\n".encode()
    api.post("/build", _tar({"Dockerfile": dockerfile, "big": os.urandom(3 << 20)}), t="half", nocache=1)


def _create_and_start(api: EngineApi) -> None:
    while True:
        identifier = api.create("sleep", "1000", host={"NetworkMode": "bridge"})
        api.post(f"/containers/{identifier}/start")


def _import(api: EngineApi) -> None:
    while True:
        api.post("/images/create", _tar({"x": os.urandom(4 << 20)}), fromSrc="-", repo="half")


def _commit(api: EngineApi) -> None:
    identifier = api.create("sh", "-c", "head -c 4000000 /dev/urandom > /f", host={"NetworkMode": "none"})
    api.post(f"/containers/{identifier}/start")
    api.wait(identifier)
    while True:
        api.post("/commit", {}, container=identifier, repo="half")


@contextlib.contextmanager
def _network() -> Iterator[tuple[str, ...]]:
    """A network namespace for one daemon after the other; gives what runs a command in it."""
    command = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert b"up\n" == holder.stdout.readline()
        yield ("nsenter", f"--net=/proc/{holder.pid}/ns/net")
        holder.kill()


@pytest.mark.parametrize("work", [_create_and_start, _build, _import, _commit], ids=lambda work: work.__name__)
def test_a_killed_daemon_leaves_nothing_half_made(tmp_path: Path, work: Callable[[EngineApi], None]) -> None:
    with _network() as before, served(tmp_path / "d", before=before) as first:
        thread = _quietly(lambda: work(first.api))
        time.sleep(0.7)
        os.kill(first.pid, signal.SIGKILL)
        first.daemon.process.wait()
        thread.join(20)
        assert not thread.is_alive()
        with served(tmp_path / "d", before=before) as second:
            for one in second.api.get("/containers/json", all=1).json():
                assert one["State"] in ("created", "running", "exited")
                second.api.remove(one["Id"])
            _settled(second, NOTHING_LEFT)
            for image in second.api.get("/images/json").json():
                identifier = second.api.create("true", host={"NetworkMode": "none"}, Image=image["Id"])
                second.api.remove(identifier)
            assert (0, "works\n") == second.api.output("echo", "works")


def test_a_full_disk(small_disk: Path) -> None:
    with served(small_disk) as engine:
        api = engine.api
        identifier = api.run("sh", "-c", "head -c 3000000 /dev/urandom > /f; sleep 1000")
        api.until(lambda: b"/f" in api.get(f"/containers/{identifier}/changes").body)
        for action in ("pause", "unpause"):  # a commit pauses it, and its group for that stays until its end
            assert 204 == api.post(f"/containers/{identifier}/{action}").status
        quiet = engine.left()
        ballast = small_disk / "ballast"
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        ballast.write_bytes(bytes(free - (1 << 20)))
        big = _tar({"Dockerfile": f"FROM {IMAGE}\nCOPY big /big\n".encode(), "big": os.urandom(4 << 20)})
        for answer in (
            api.post("/images/create", _tar({"big": os.urandom(4 << 20)}), fromSrc="-", repo="big"),
            api.post("/images/load", _tar({"big": os.urandom(4 << 20)})),
            api.post("/build", big, t="big"),
            api.post("/commit", {}, container=identifier, repo="big"),
        ):
            assert "no space left on device" in answer.body.decode().lower(), answer
        with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        refused = api.post(
            "/containers/create", {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
        )
        assert 500 == refused.status
        assert "no space left on device" in refused.message
        assert 200 == api.get("/_ping").status
        ballast.unlink()
        _settled(engine, quiet)
        assert [f"{IMAGE}:latest"] == [tag for one in api.get("/images/json").json() for tag in one["RepoTags"]]
        assert 201 == api.post("/commit", {}, container=identifier, repo="big").status
        assert (0, "works\n") == api.output("echo", "works")


THREADS = 16
CONTAINERS = 200


def test_many_clients_at_once(tmp_path: Path) -> None:
    """Random walks of sixteen clients over their own containers and each other's."""
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    with served(tmp_path / "d") as engine:
        made: list[str] = []
        wrong: list[str] = []
        counter = iter(range(CONTAINERS))

        def walk(number: int) -> None:
            chance = random.Random(seed + number)
            api = EngineApi(engine.api.path, image=IMAGE, timeout=60)
            try:
                while next(counter, None) is not None:
                    network = chance.choice(["none", "none", "bridge"])
                    command = chance.choice([["true"], ["sleep", "1000"], ["sh", "-c", "exit 3"]])
                    host = {"NetworkMode": network, "AutoRemove": chance.random() < 0.2}
                    made.append(api.create(*command, host=host))
                    for _ in range(3):
                        _step(api, chance, chance.choice(made[-20:]), wrong)
            except Exception as error:
                wrong.append(repr(error))

        threads = [threading.Thread(target=walk, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
            assert not thread.is_alive(), f"it hangs; seed {seed}"
        assert [] == wrong, "\n".join([f"seed {seed}", *wrong])
        for one in engine.api.get("/containers/json", all=1).json():
            engine.api.remove(one["Id"])
        _settled(engine, NOTHING_LEFT)
        assert [] == _children_of_the_supervisor(engine)
        assert "Traceback" not in engine.daemon.log


def _step(api: EngineApi, chance: random.Random, identifier: str, wrong: list[str]) -> None:
    of = f"/containers/{identifier}"
    method, path, allowed = chance.choice(
        [
            ("POST", f"{of}/start", {204, 304, 404, 409}),
            ("POST", f"{of}/start", {204, 304, 404, 409}),
            ("POST", f"{of}/stop?t=0", {204, 304, 404}),
            ("POST", f"{of}/kill", {204, 404, 409}),
            ("POST", f"{of}/restart?t=0", {204, 404, 409}),
            ("POST", f"{of}/pause", {204, 404, 409}),
            ("POST", f"{of}/unpause", {204, 404, 409}),
            ("GET", f"{of}/json", {200, 404}),
            ("GET", "/containers/json?all=1&size=1", {200}),
            ("GET", f"{of}/top", {200, 404, 409}),
            ("DELETE", f"{of}?force=1&v=1", {204, 404, 409}),
            ("DELETE", of, {204, 404, 409}),
            ("POST", f"{of}/rename?name=n{chance.randrange(50)}", {204, 400, 404, 409}),
        ]
    )
    answer = api.request(method, path)
    if answer.status not in allowed:
        wrong.append(f"{method} {path}: {answer.status} {answer.body[:300]!r}")


def _children_of_the_supervisor(engine: ServedEngine) -> list[int]:
    """Processes of the daemon's supervisor, and so of containers."""
    (supervisor,) = set(engine.daemon.processes()) - {engine.pid}
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return [int(pid) for pid in children]
