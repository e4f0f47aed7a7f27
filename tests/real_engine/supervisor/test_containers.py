"""Containers that a supervisor holds: their start, their output and log, and their end."""

import base64
import hashlib
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from real_engine.container.resources import Limits
from real_engine.errors import Conflict, EngineError, NotFound
from real_engine.supervisor.client import Exited, OutOfMemory, StartError
from real_engine.supervisor.exit_record import read_exit
from tests.real_engine.supervisor.conftest import eventually, is_alive

pytestmark = pytest.mark.root


def test_output_log_and_exit_status(supervised):
    container = supervised.new_id()
    attached = supervised.attach(container)
    before = time.time_ns()
    started = supervised.start(container, "echo out; echo err >&2; exit 7")
    end = supervised.events.wait(Exited, container)
    assert (container, container, 7, 0, False) == (
        end.target_id,
        end.container_id,
        end.status,
        end.signal,
        end.oom_killed,
    )
    assert before < started.started_at == end.started_at < end.finished_at < time.time_ns()
    supervised.client.acknowledge(container)
    assert (b"out\n", b"err\n") == attached.streams()
    assert {("stdout", b"out\n"), ("stderr", b"err\n")} == set(supervised.logged(container))
    assert [] == supervised.client.list()


def test_the_end_is_on_disk_when_it_is_told(supervised):
    container = supervised.new_id()
    supervised.start(container, "exit 3")
    end = supervised.events.wait(Exited, container)
    assert end == read_exit(supervised.directory(container))
    assert 3 == json.loads((supervised.directory(container) / "exit.json").read_text())["status"]


def test_a_new_start_forgets_the_last_end(supervised):
    container = supervised.new_id()
    supervised.start(container, "exit 3")
    supervised.end_of(container)
    supervised.start(container, "sleep 600")
    assert read_exit(supervised.directory(container)) is None


def test_ended_by_a_signal(supervised):
    container = supervised.new_id()
    supervised.start(container, "exec sleep 600")
    supervised.client.signal(container, signal.SIGKILL)
    end = supervised.events.wait(Exited, container)
    assert (137, signal.SIGKILL) == (end.status, end.signal)


def test_a_signal_that_the_program_handles(supervised):
    container = supervised.new_id()
    attached = supervised.attach(container, framed=False)
    supervised.start(container, "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    attached.read_until(b"ready\n")
    supervised.client.signal(container, signal.SIGTERM)
    assert 5 == supervised.end_of(container).status
    assert b"caught\n" == attached.read_to_end()


def test_where_it_runs(supervised):
    container = supervised.new_id()
    started = supervised.start(container, "sleep 600")
    assert is_alive(started.pid)
    for path in started.group_paths.values():
        assert started.pid in map(int, (Path(path) / "cgroup.procs").read_text().split())
    entry = supervised.client.list()[0]
    assert (container, "running", started.pid) == (entry.target_id, entry.state, entry.pid)
    assert started.group_paths == entry.group_paths
    assert supervised.groups()


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        (("nosuch", "x"), 127, "executable file not found"),
        (("/etc/passwd", "x"), 126, "(?i)permission denied"),
        (("/no/such", "x"), 127, "(?i)no such file"),
    ],
)
def test_a_program_that_cannot_be_run(supervised, command, status, message):
    container = supervised.new_id()
    attached = supervised.attach(container)
    with pytest.raises(StartError, match=message) as raised:
        supervised.start(container, *command)
    assert status == raised.value.status
    assert raised.value.reason
    assert (b"", b"") == attached.streams()  # let go
    assert [] == supervised.client.list()
    assert [] == supervised.groups()


def test_what_cannot_be_meant(supervised):
    container = supervised.new_id()
    attached = supervised.attach(container)
    with pytest.raises(EngineError, match="max-size must be a positive number"):
        supervised.start(container, "true", log=supervised.log_options(container, max_size="0"))
    assert b"" == attached.read_to_end()
    assert [] == supervised.client.list()


def test_one_cannot_run_twice(supervised):
    container = supervised.new_id()
    supervised.start(container, "sleep 600")
    with pytest.raises(Conflict):
        supervised.start(container, "true")


def test_what_does_not_run(supervised):
    for call in (
        lambda: supervised.client.signal("nosuch", 9),
        lambda: supervised.client.resize("nosuch", 1, 1),
        lambda: supervised.client.pause("nosuch"),
        lambda: supervised.exec("nosuch", "e1", "true"),
    ):
        with pytest.raises(NotFound):
            call()


@pytest.mark.parametrize("name", ["../evil", "", "a/b", "."])
def test_an_id_that_is_no_name(supervised, name):
    with pytest.raises(EngineError, match="is no id"):
        supervised.client.attach(name, 0, stdin=False, stdout=True, stderr=True, framed=True)


def test_ten_megabytes_to_a_slow_reader(supervised):
    """Nothing is lost, neither to the reader nor in the log, and the program waits meanwhile."""
    container = supervised.new_id()
    attached = supervised.attach(container, stderr=False, framed=False)
    supervised.start(container, "head -c 8000000 /dev/urandom > /data; base64 /data; md5sum /data >&2")
    received = bytearray()
    while len(received) < 10_000_000:
        received += attached.socket.recv(50_000)
        if len(received) < 2_000_000:
            time.sleep(0.005)
    supervised.end_of(container)
    received += attached.read_to_end()
    logged = supervised.logged(container)
    assert bytes(received) == b"".join(data for stream, data in logged if stream == "stdout")
    (digest,) = (data for stream, data in logged if stream == "stderr")
    assert digest.split()[0].decode() == hashlib.md5(base64.b64decode(received), usedforsecurity=False).hexdigest()


def test_a_reader_that_does_not_read_holds_the_program_up(supervised):
    container = supervised.new_id()
    attached = supervised.attach(container)
    supervised.start(
        container, "head -c 8000000 /dev/zero; echo end >&2", log=supervised.log_options(container, "none")
    )
    time.sleep(0.3)
    assert supervised.client.list()[0].running
    reader = threading.Thread(target=attached.read_to_end)
    reader.start()
    assert 0 == supervised.end_of(container).status
    reader.join()
    assert (b"\0" * 8_000_000, b"end\n") == attached.streams()


def test_a_reader_that_goes_lets_the_program_go_on(supervised):
    container = supervised.new_id()
    attached = supervised.attach(container)
    supervised.start(container, "seq 1 100000; exit 4")
    attached.socket.recv(10)
    attached.close()
    assert 4 == supervised.end_of(container).status
    assert b"100000\n" == supervised.logged(container)[-1][1]


def test_several_readers_get_the_same(supervised):
    container = supervised.new_id()
    readers = [supervised.attach(container) for _ in range(3)]
    only_errors = supervised.attach(container, stdout=False)
    supervised.start(container, "seq 1 1000; echo e >&2")
    supervised.end_of(container)
    expected = b"".join(b"%d\n" % number for number in range(1, 1001))
    assert [(expected, b"e\n")] * 3 == [reader.streams() for reader in readers]
    assert (b"", b"e\n") == only_errors.streams()


def test_a_last_line_without_end(supervised):
    container = supervised.new_id()
    supervised.start(container, "printf 'a\\nb'")
    supervised.end_of(container)
    assert [("stdout", b"a\n"), ("stdout", b"b")] == supervised.logged(container)


def test_log_rotation(supervised):
    container = supervised.new_id()
    log = supervised.log_options(container, max_size="20k", max_file="3", compress="true")
    supervised.start(container, "seq 1 2000", log=log)
    supervised.end_of(container)
    rotated = {f"{container}-json.log", f"{container}-json.log.1.gz", f"{container}-json.log.2.gz"}
    eventually(lambda: rotated == {file.name for file in supervised.directory(container).glob("*.log*")})
    logged = [int(data) for _, data in supervised.logged(container)]
    assert list(range(logged[0], 2001)) == logged


def test_no_log(supervised):
    container = supervised.new_id()
    supervised.start(container, "echo x", log=supervised.log_options(container, "none"))
    supervised.end_of(container)
    assert [] == list(supervised.directory(container).glob("*.log*"))


def test_a_background_process_ends_with_the_container(supervised):
    container = supervised.new_id()
    started = supervised.start(container, "sleep 600 & exit 2")
    begin = time.monotonic()
    assert 2 == supervised.end_of(container).status
    assert time.monotonic() - begin < 1
    assert not is_alive(started.pid)
    eventually(lambda: [] == supervised.groups())


def test_out_of_memory(supervised):
    container = supervised.new_id()
    limits = Limits(memory_bytes=16 << 20, memory_swap_bytes=16 << 20)
    supervised.start(container, "tail /dev/zero", limits=limits)
    end = supervised.end_of(container)
    assert end.oom_killed
    assert 137 == end.status
    assert container == supervised.events.wait(OutOfMemory).container_id


def test_a_child_out_of_memory_does_not_end_the_container(supervised):
    container = supervised.new_id()
    limits = Limits(memory_bytes=16 << 20, memory_swap_bytes=16 << 20)
    supervised.start(container, "tail /dev/zero; exit 6", limits=limits)
    end = supervised.end_of(container)
    assert (6, True) == (end.status, end.oom_killed)


def test_pause(supervised):
    container = supervised.new_id()
    attached = supervised.attach(container, framed=False)
    supervised.start(container, "while :; do echo x; sleep 0.01; done")
    attached.read_until(b"x\n")
    supervised.client.pause(container)
    assert supervised.client.list()[0].paused
    time.sleep(0.1)
    while not attached.silent:
        attached.socket.recv(1 << 16)
    with pytest.raises(Conflict, match="is paused"):
        supervised.exec(container, "e1", "true")
    supervised.client.unpause(container)
    attached.received = b""
    attached.read_until(b"x\n")


def test_other_limits_while_it_runs(supervised):
    container = supervised.new_id()
    started = supervised.start(container, "sleep 600", limits=Limits(pids=50))
    supervised.client.update(container, Limits(pids=20))
    group = Path(started.group_paths.get("pids") or started.group_paths[""])
    assert "20" == (group / "pids.max").read_text().strip()


def test_the_steps_of_a_start(supervised):
    container = supervised.new_id()
    steps = supervised.start(container, "sleep 600", observe=True).steps
    assert "clone" in {step["phase"] for step in steps}
    assert any("execve(" in step["call"] and step["why"] for step in steps)
    assert all(step["begin_seconds"] <= step["end_seconds"] for step in steps)
    other = supervised.new_id()
    assert [] == supervised.start(other, "sleep 600").steps


def test_a_prepared_network(supervised):
    """The namespace that the caller hands over is the container's; here it is the host's own, by which it is known."""
    container = supervised.new_id()
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        started = supervised.start(container, "sleep 600", network="private", network_namespace=namespace)
        assert os.readlink("/proc/self/ns/net") == os.readlink(f"/proc/{started.pid}/ns/net")
    finally:
        os.close(namespace)


def test_fifty_at_once(supervised):
    containers = [supervised.new_id() for _ in range(50)]
    log = {name: supervised.log_options(name) for name in containers}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: supervised.start(name, f"echo {name}", log=log[name]), containers))
    for container in containers:
        assert 0 == supervised.end_of(container).status
        assert [("stdout", f"{container}\n".encode())] == supervised.logged(container)
    assert [] == supervised.client.list()


def test_no_descriptor_and_no_memory_is_kept(supervised):
    """After many containers the supervisor is as it was after a few."""

    def state() -> tuple[int, int]:
        for _ in range(10):
            assert (0, b"x\n", b"") == supervised.run("echo x")
        own = Path(f"/proc/{supervised.client.pid}")
        memory = next(line for line in (own / "status").read_text().splitlines() if line.startswith("VmRSS"))
        return len(list((own / "fd").iterdir())), int(memory.split()[1])

    state()
    descriptors, kilobytes = state()
    for _ in range(4):
        later = state()
    assert descriptors == later[0]
    assert later[1] - kilobytes < 300


def test_namespaces_of_a_process_that_is_no_container_of_ours_are_not_joined(supervised):
    # The daemon names them by the number of another container's process. When that has just ended, the number may have
    # been given to any process of the host.
    joined = supervised.new_id()
    pid = supervised.start(joined, "sleep 600").pid
    for kind, name in (("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")):
        with pytest.raises(Conflict, match=f"cannot join {name} of a non running container"):
            supervised.start(supervised.new_id(), "true", **{kind: f"/proc/{os.getpid()}/ns/{name}"})
    other = supervised.start(supervised.new_id(), "sleep 600", network=f"/proc/{pid}/ns/net")
    assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink(f"/proc/{other.pid}/ns/net")
    supervised.client.signal(joined, 9)
    supervised.end_of(joined)
    with pytest.raises(Conflict, match="non running"):
        supervised.start(supervised.new_id(), "true", network=f"/proc/{pid}/ns/net")


def test_whether_a_process_is_there_still(supervised):
    """By a signal that does nothing: what was opened by the number of a process is its own if this passes."""
    container = supervised.new_id()
    supervised.start(container, "sleep 600")
    supervised.client.signal(container, 0)
    supervised.client.signal(container, 9)
    supervised.end_of(container)
    with pytest.raises(NotFound):
        supervised.client.signal(container, 0)
