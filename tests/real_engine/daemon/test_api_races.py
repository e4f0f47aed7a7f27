"""Calls of the API that meet each other, and what a killed daemon could not write down."""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_api import EngineApi, frames
from served_engine import ServedEngine, served

pytestmark = [pytest.mark.root]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedEngine]:
    with served(tmp_path_factory.mktemp("races")) as engine:
        yield engine


@pytest.fixture(scope="module")
def api(engine: ServedEngine) -> EngineApi:
    return engine.api


def test_a_slow_upload_does_not_keep_ends_from_being_noted(api: EngineApi) -> None:
    """More of them than there are threads for the supervisor's reports."""
    slow = []
    for _ in range(10):
        identifier = api.run("sleep", "1000")
        target = f"/containers/{identifier}/archive"
        stream = api._connect()
        head = f"PUT {api.version}{target}?path=/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
        stream.sendall(head.encode() + bytes(512))
        slow.append((identifier, stream))
    time.sleep(0.2)
    for identifier, _ in slow:
        assert 204 == api.post(f"/containers/{identifier}/kill").status
    assert (0, "works\n") == api.output("echo", "works")
    for identifier, stream in slow:
        assert "exited" == api.inspect(identifier)["State"]["Status"]
        stream.close()
        api.remove(identifier)


def test_a_container_that_goes_at_its_end_outlasts_a_restart(api: EngineApi) -> None:
    identifier = api.run("sh", "-c", "cat /kept; echo kept > /kept; exec sleep 1000", host={"AutoRemove": True})
    api.until(lambda: 200 == api.request("HEAD", f"/containers/{identifier}/archive", path="/kept").status)
    assert 204 == api.post(f"/containers/{identifier}/restart", t=0).status
    api.until(lambda: b"kept\n" in [data for _, data in frames(api.logs(identifier))])
    assert 204 == api.post(f"/containers/{identifier}/kill").status
    api.until(lambda: 404 == api.get(f"/containers/{identifier}/json").status)


def test_a_log_that_is_followed_ends_with_a_container_that_waited_for_its_restart(api: EngineApi) -> None:
    identifier = api.run("false", host={"RestartPolicy": {"Name": "always"}})
    api.until(lambda: api.inspect(identifier)["RestartCount"] >= 3)  # the next one comes after 0.8 s and more
    api.until(lambda: api.inspect(identifier)["State"]["Restarting"])
    with api.stream("GET", f"/containers/{identifier}/logs", stdout=1, follow=1) as stream:
        assert 204 == api.delete(f"/containers/{identifier}", force=1).status
        stream.body(10)


def test_a_stopped_restart_is_not_made(api: EngineApi) -> None:
    identifier = api.run("false", host={"RestartPolicy": {"Name": "always"}})
    api.until(lambda: api.inspect(identifier)["RestartCount"] >= 3)
    api.until(lambda: api.inspect(identifier)["State"]["Restarting"])
    assert 204 == api.post(f"/containers/{identifier}/stop").status
    count = api.inspect(identifier)["RestartCount"]
    time.sleep(1.0)
    assert ("exited", count) == (api.inspect(identifier)["State"]["Status"], api.inspect(identifier)["RestartCount"])
    api.remove(identifier)


def test_who_is_attached_to_what_is_removed_unstarted_is_let_go(api: EngineApi) -> None:
    identifier = api.create("cat", OpenStdin=True)
    with api.upgrade(f"/containers/{identifier}/attach", stream=1, stdin=1, stdout=1) as stream:
        assert 101 == stream.status
        api.remove(identifier)
        assert b"" == stream.all(10)


def test_killed_and_paused_at_once(api: EngineApi) -> None:
    for _ in range(10):
        identifier = api.run("sleep", "1000")
        pausing = threading.Thread(target=api.post, args=(f"/containers/{identifier}/pause",))
        pausing.start()
        began = time.monotonic()
        assert api.post(f"/containers/{identifier}/kill").status in (204, 409)
        pausing.join()
        assert "exited" == api.inspect(identifier)["State"]["Status"]
        assert time.monotonic() - began < 5
        api.remove(identifier)


def test_memory_that_runs_out_in_a_container_that_goes_on(api: EngineApi) -> None:
    limit = 16 << 20
    identifier = api.run("sh", "-c", "tail /dev/zero; exec sleep 1000", host={"Memory": limit, "MemorySwap": limit})
    api.until(lambda: api.inspect(identifier)["State"]["OOMKilled"])
    assert api.inspect(identifier)["State"]["Running"]
    filters = {"container": [identifier], "event": ["oom", "die"]}
    told = api.get("/events", since=1, until=int(time.time()) + 1, filters=filters).lines()
    assert {"oom"} == {event["Action"] for event in told}
    api.remove(identifier)


@contextlib.contextmanager
def _network() -> Iterator[tuple[str, ...]]:
    """A network namespace for one daemon after the other; gives what runs a command in it."""
    command = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert b"up\n" == holder.stdout.readline()
        yield ("nsenter", f"--net=/proc/{holder.pid}/ns/net")
        holder.kill()


def _edit(path: Path, **state: object) -> None:
    """Make a record what it was before the daemon wrote it for the last time."""
    record = json.loads(path.read_bytes())
    record["state"] |= state
    path.write_text(json.dumps(record))


def test_what_a_killed_daemon_could_not_write_down(tmp_path: Path) -> None:
    never = "0001-01-01T00:00:00Z"
    with _network() as before, served(tmp_path / "d", before=before) as first:
        api = first.api
        frozen, unnoted, going = (
            api.run("sleep", "1000"),
            api.run("sh", "-c", "sleep 1; exit 9"),
            api.run("sleep", "99"),
        )
        assert 204 == api.post(f"/containers/{frozen}/pause").status
        os.kill(first.pid, signal.SIGKILL)
        first.daemon.process.wait()
        records = {one: first.root / "containers" / one / "container.json" for one in (frozen, unnoted, going)}
        _edit(records[frozen], paused=False)
        _edit(records[unnoted], running=False, pid=0, started_at=never)
        _edit(records[going], removing=True)
        time.sleep(1.5)
        with served(tmp_path / "d", before=before) as second:
            api = second.api
            assert "paused" == api.inspect(frozen)["State"]["Status"]
            assert ("exited", 9) == (api.inspect(unnoted)["State"]["Status"], api.inspect(unnoted)["State"]["ExitCode"])
            assert 404 == api.get(f"/containers/{going}/json").status
            for one in (frozen, unnoted):
                api.remove(one)
            api.until(lambda: not any(second.left().values()))


def test_a_container_that_ends_on_a_full_disk(small_disk: Path) -> None:
    with served(small_disk) as engine:
        api = engine.api
        identifier = api.run("sleep", "1000")
        with (small_disk / "ballast").open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        assert 204 == api.post(f"/containers/{identifier}/kill").status
        assert "exited" == api.inspect(identifier)["State"]["Status"]
        assert 204 == api.delete(f"/containers/{identifier}").status
