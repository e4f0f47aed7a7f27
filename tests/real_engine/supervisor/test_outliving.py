"""The supervisor outlives the daemon, hands over to a new one, ends by itself, and leaves nothing when it is killed."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import real_engine
from real_engine.errors import EngineError, Unavailable
from real_engine.supervisor.client import Exited, Lost, Replaced, SupervisorClient
from real_engine.supervisor.exit_record import read_exit
from real_engine.supervisor.protocol import encode
from tests.real_engine.supervisor.conftest import Events, Supervised, eventually, is_alive

pytestmark = pytest.mark.root

# A daemon: it connects, says so, and waits to be killed.
_DAEMON = """
import sys, time
from pathlib import Path
from real_engine.supervisor.client import SupervisorClient
client = SupervisorClient.connect_or_start(Path(sys.argv[1]), print)
print(client.pid, flush=True)
time.sleep(600)
"""


def test_a_session_goes_on_while_the_daemon_is_away(supervised):
    container = supervised.new_id()
    attached = supervised.attach(container, stdin=True, framed=False)
    supervised.start(container, "cat; exit 6", open_stdin=True, stdin_once=True)
    supervisor = supervised.client.pid
    supervised.client.close()
    attached.send(b"nobody listens\n")
    attached.read_until(b"nobody listens\n")
    supervised.reconnect()
    assert supervisor == supervised.client.pid
    assert ["running"] == [entry.state for entry in supervised.client.list()]
    attached.send(b"and again\n")
    attached.read_until(b"and again\n")
    attached.end_input()
    assert 6 == supervised.end_of(container).status
    assert b"" == attached.read_to_end()
    assert [b"nobody listens\n", b"and again\n"] == [data for _, data in supervised.logged(container)]


def test_an_end_while_the_daemon_is_away_is_kept(supervised):
    container = supervised.new_id()
    attached = supervised.attach(container)
    started = supervised.start(container, "sleep 0.3; echo late; exit 8")
    supervised.client.close()
    assert (b"late\n", b"") == attached.streams()  # it isn't held back for a daemon that is away
    supervised.reconnect()
    (entry,) = supervised.client.list()
    assert (container, "exited", 8) == (entry.target_id, entry.state, entry.status)
    assert started.started_at == entry.started_at < entry.finished_at
    end = read_exit(supervised.directory(container))
    assert (8, entry.finished_at) == (end.status, end.finished_at)
    supervised.client.acknowledge(container)
    assert [] == supervised.client.list()


def test_clients_are_let_go_when_the_daemon_goes_before_it_acknowledged(supervised):
    container = supervised.new_id()
    attached = supervised.attach(container)
    supervised.start(container, "echo x")
    supervised.events.wait(Exited, container)
    begin = time.monotonic()
    supervised.client.close()
    assert (b"x\n", b"") == attached.streams()
    assert time.monotonic() - begin < 2
    supervised.reconnect()


def test_a_killed_daemon_takes_nothing_with_it(tmp_path, image):
    environment = os.environ | {"PYTHONPATH": str(Path(real_engine.__file__).parents[1])}
    daemon = subprocess.Popen(
        [sys.executable, "-c", _DAEMON, tmp_path], stdout=subprocess.PIPE, text=True, env=environment
    )
    supervisor = int(daemon.stdout.readline())
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    assert is_alive(supervisor)
    one = Supervised(tmp_path, image)
    assert supervisor == one.client.pid
    assert os.getsid(supervisor) != os.getsid(0)
    one.client.shutdown()
    eventually(lambda: not is_alive(supervisor))


def test_a_new_daemon_takes_over(supervised):
    container = supervised.new_id()
    supervised.start(container, "sleep 600")
    before, events = supervised.client, supervised.events
    supervised.reconnect()
    events.wait(Replaced)
    with pytest.raises(Unavailable, match="another daemon has taken over"):
        before.list()
    supervised.client.signal(container, signal.SIGKILL)
    supervised.events.wait(Exited, container)
    assert [Replaced()] == events.seen  # no Lost, and no news for the old one
    before.close()


def test_killed_it_leaves_nothing(supervised):
    container, with_terminal = supervised.new_id(), supervised.new_id()
    pids = [
        supervised.start(container, "sleep 600 & sleep 600").pid,
        supervised.start(with_terminal, "sleep 600", tty=True).pid,
        supervised.exec(container, "e1", "sleep 600"),
    ]
    attached = supervised.attach(container)
    os.kill(supervised.client.pid, signal.SIGKILL)
    supervised.events.wait(Lost)
    assert b"" == attached.read_to_end()
    eventually(lambda: not any(map(is_alive, pids)))
    with pytest.raises(Unavailable):
        supervised.client.list()
    before = supervised.client.pid
    supervised.reconnect()
    assert before != supervised.client.pid
    assert [] == supervised.client.list()
    assert [] == supervised.groups()  # swept
    assert read_exit(supervised.directory(container)) is None
    supervised.start(container, "sleep 600")  # its directories are as good as before


def test_who_waits_for_an_answer_hears_of_the_loss(supervised):
    os.kill(supervised.client.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(supervised.client.list)
        time.sleep(0.1)
        assert not answer.done()
        os.kill(supervised.client.pid, signal.SIGKILL)
        with pytest.raises(Unavailable):
            answer.result(5)
    eventually(lambda: not is_alive(supervised.client.pid))


def test_two_daemons_start_one_supervisor(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        clients = list(pool.map(lambda _: SupervisorClient.connect_or_start(tmp_path, Events()), range(4)))
    pids = {client.pid for client in clients}
    assert 1 == len(pids)
    survivors = []
    for client in clients:
        try:
            client.list()
            survivors.append(client)
        except Unavailable:
            client.close()
    assert 1 == len(survivors)
    survivors[0].shutdown()
    eventually(lambda: not any(map(is_alive, pids)))


@contextlib.contextmanager
def _serving(root: Path, idle_seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor in a process of ours, which doesn't wait as long as usual."""
    code = (
        "import sys; from pathlib import Path; from real_engine.supervisor.server import Supervisor;"
        "Supervisor(Path(sys.argv[1]), float(sys.argv[2])).run()"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(real_engine.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", code, root, str(idle_seconds)], env=environment)
    try:
        eventually((root / "run/supervisor.sock").exists)
        yield process
    finally:
        process.terminate()  # without a container it ends in order, and so do its groups
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_it_ends_when_nobody_needs_it(tmp_path, image):
    with _serving(tmp_path, 0.5) as process:
        one = Supervised(tmp_path, image)
        assert process.pid == one.client.pid
        container = one.new_id()
        one.start(container, "sleep 1")
        one.client.close()
        time.sleep(0.7)
        assert process.poll() is None  # a container runs
        assert 0 == process.wait(10)
    assert 0 == read_exit(one.directory(container)).status
    assert not (tmp_path / "run/supervisor.sock").exists()
    assert [] == one.groups()


@pytest.mark.parametrize("busy", [False, True])
def test_a_daemon_that_leaves_is_not_waited_for(tmp_path, image, busy):
    with _serving(tmp_path, 600) as process:
        one = Supervised(tmp_path, image)
        container = one.new_id()
        if busy:
            one.start(container, "sleep 1")
        one.client.leave()
        one.client.close()
        if busy:
            time.sleep(0.5)
            assert process.poll() is None
        assert 0 == process.wait(10)
    assert [] == one.groups()


def test_a_daemon_that_comes_after_it_is_not_left(tmp_path):
    with _serving(tmp_path, 600) as process:
        first = SupervisorClient.connect_or_start(tmp_path, Events())
        first.leave()
        second = SupervisorClient.connect_or_start(tmp_path, Events())
        assert process.pid == second.pid
        first.close()
        second.close()
        time.sleep(0.3)
        assert process.poll() is None


def test_it_does_not_end_while_a_daemon_is_connected(tmp_path):
    with _serving(tmp_path, 0.2) as process:
        client = SupervisorClient.connect_or_start(tmp_path, Events())
        time.sleep(0.6)
        assert [] == client.list()
        client.close()
        assert 0 == process.wait(5)


def test_sigterm(supervised):
    container = supervised.new_id()
    supervised.start(container, "sleep 600")
    supervisor = supervised.client.pid
    os.kill(supervisor, signal.SIGTERM)
    os.kill(supervisor, signal.SIGINT)
    time.sleep(0.1)
    assert ["running"] == [entry.state for entry in supervised.client.list()]
    assert "SIGTERM is ignored while containers run" in supervised.own_log()
    (supervised.root / "run/supervisor.log").write_text("")
    supervised.client.signal(container, signal.SIGKILL)
    supervised.end_of(container)
    os.kill(supervisor, signal.SIGTERM)
    eventually(lambda: not is_alive(supervisor))


def test_shutdown_ends_all_containers(supervised):
    container = supervised.new_id()
    attached = supervised.attach(container)
    pid = supervised.start(container, "echo x; sleep 600").pid
    attached.socket.recv(10, socket.MSG_PEEK)
    frozen = supervised.new_id()
    pids = (pid, supervised.start(frozen, "sleep 600").pid)
    supervised.client.pause(frozen)
    supervised.client.shutdown()
    eventually(lambda: not is_alive(supervised.client.pid))
    assert [] == [pid for pid in pids if is_alive(pid)]
    assert [] == supervised.groups()
    assert (b"x\n", b"") == attached.streams()
    assert 137 == read_exit(supervised.directory(container)).status


def test_modes(supervised):
    run = supervised.root / "run"
    assert 0o600 == (run / "supervisor.sock").stat().st_mode & 0o777
    assert 0o600 == (run / "supervisor.log").stat().st_mode & 0o777


def test_its_executable_cannot_be_written_to(supervised):
    """A container's process is a copy of the supervisor until it runs its program, and /proc/PID/exe leads there."""
    descriptor = os.open(f"/proc/{supervised.client.pid}/exe", os.O_RDONLY)
    try:
        assert os.fstatvfs(descriptor).f_flag & os.ST_RDONLY
    finally:
        os.close(descriptor)
    with pytest.raises(OSError, match=r"Read-only file system|Text file busy"):
        os.close(os.open(f"/proc/{supervised.client.pid}/exe", os.O_WRONLY))


def test_a_data_root_too_deep_for_a_socket(tmp_path, image):
    one = Supervised(tmp_path / ("x" * 80) / ("y" * 80), image)
    try:
        assert (0, b"x\n", b"") == one.run("echo x")
    finally:
        one.client.shutdown()
        one.close()


def test_a_data_root_that_cannot_be_used(tmp_path):
    (tmp_path / "run").write_text("no directory")
    with pytest.raises((EngineError, OSError)):
        SupervisorClient.connect_or_start(tmp_path, Events())


@pytest.mark.parametrize("greeting", [{"hello": 999}, {"id": 1, "call": "list"}], ids=["version", "no greeting"])
def test_another_protocol(supervised, greeting):
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(5)
        stranger.connect(str(supervised.root / "run/supervisor.sock"))
        stranger.sendall(encode(greeting))
        assert b"stop its containers first" in stranger.recv(1000)
        assert b"" == stranger.recv(1000)
    assert [] == supervised.client.list()


def test_noise_does_no_harm(supervised):
    for noise in (b"\xff" * 100, b"GET / HTTP/1.1\r\n\r\n", b""):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(5)
            stranger.connect(str(supervised.root / "run/supervisor.sock"))
            if noise:
                stranger.sendall(noise)
                assert b"" == stranger.recv(1000)
    assert [] == supervised.client.list()
