"""Programs that are executed in a container that runs, and the order in which their end is seen."""

import signal
import threading
import time

import pytest

from real_engine.errors import Conflict, NotFound
from real_engine.supervisor.client import Detached, Exited, StartError
from tests.real_engine.supervisor.conftest import eventually, is_alive

pytestmark = pytest.mark.root


@pytest.fixture
def container(supervised):
    container = supervised.new_id()
    supervised.start(container, "sleep 600")
    return container


def test_output_and_status(supervised, container):
    attached = supervised.attach("e1")
    supervised.exec(container, "e1", "echo out; echo err >&2; cat /proc/1/comm; exit 5")
    end = supervised.events.wait(Exited, "e1")
    assert (container, True, 5) == (end.container_id, end.is_exec, end.status)
    supervised.client.acknowledge("e1")
    assert (b"out\nsh\n", b"err\n") == attached.streams() or (b"out\nsleep\n", b"err\n") == attached.streams()
    assert [container] == [entry.target_id for entry in supervised.client.list()]
    assert [] == supervised.logged(container)  # what an exec writes is in no log


def test_the_stream_ends_after_the_status_is_known(supervised, container):
    """The command line asks for the exit code as soon as the stream has ended, so the daemon must have heard of it."""
    known = threading.Event()
    attached = supervised.attach("e1")
    supervised.exec(container, "e1", "echo x; exit 3")
    assert 3 == supervised.events.wait(Exited, "e1").status
    order = []

    def read() -> None:
        attached.streams()
        order.append(("ended", known.is_set()))

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.2)
    assert [] == order  # the daemon hasn't said that it knows
    known.set()
    supervised.client.acknowledge("e1")
    reader.join(5)
    assert [("ended", True)] == order


def test_a_daemon_that_says_nothing_holds_nobody_for_ever(supervised, container):
    attached = supervised.attach("e1")
    supervised.exec(container, "e1", "echo x")
    assert (b"x\n", b"") == attached.streams()
    assert ["exited"] == [entry.state for entry in supervised.client.list() if entry.is_exec]


def test_input(supervised, container):
    attached = supervised.attach("e1", stdin=True)
    supervised.exec(container, "e1", "cat; echo over", stdin=True)
    attached.send(b"data ")
    attached.end_input()
    supervised.end_of("e1")
    assert (b"data over\n", b"") == attached.streams()


def test_a_terminal(supervised, container):
    attached = supervised.attach("e1", stdin=True, framed=False)
    supervised.exec(
        container, "e1", "stty size; tty; read x; echo got $x", stdin=True, tty=True, terminal_size=(20, 50)
    )
    attached.read_until(b"20 50\r\n/dev/pts/0\r\n")
    supervised.client.resize("e1", 21, 51)
    attached.send(b"typed\n")
    supervised.end_of("e1")
    assert b"typed\r\ngot typed\r\n" == attached.read_to_end()


def test_detaching(supervised, container):
    attached = supervised.attach("e1", stdin=True, framed=False)
    pid = supervised.exec(container, "e1", "cat", stdin=True, tty=True)
    attached.send(b"\x10\x11")
    assert b"" == attached.read_to_end()
    assert container == supervised.events.wait(Detached, "e1").container_id
    assert is_alive(pid)


def test_a_background_process_keeps_the_stream_two_seconds_and_the_status_not_at_all(supervised, container):
    attached = supervised.attach("e1")
    begin = time.monotonic()
    supervised.exec(container, "e1", "sleep 600 & echo started; exit 4")
    assert 4 == supervised.end_of("e1").status
    assert time.monotonic() - begin < 1
    assert (b"started\n", b"") == attached.streams()
    assert 1.5 < time.monotonic() - begin < 4


def test_it_ends_with_its_container(supervised, container):
    attached = supervised.attach("e1")
    supervised.exec(container, "e1", "sleep 600")
    supervised.client.signal(container, signal.SIGKILL)
    assert 137 == supervised.end_of("e1").status
    assert 137 == supervised.end_of(container).status
    assert (b"", b"") == attached.streams()


def test_signals(supervised, container):
    pid = supervised.exec(container, "e1", "exec sleep 600")
    supervised.client.signal("e1", signal.SIGTERM)
    end = supervised.end_of("e1")
    assert (143, signal.SIGTERM) == (end.status, end.signal)
    eventually(lambda: not is_alive(pid))


def test_a_program_that_does_not_exist(supervised, container):
    attached = supervised.attach("e1")
    with pytest.raises(StartError, match="executable file not found") as raised:
        supervised.exec(container, "e1", "nosuch", "x")
    assert 127 == raised.value.status
    assert attached.silent  # the daemon may still write to the client why
    supervised.client.acknowledge("e1")
    assert (b"", b"") == attached.streams()
    assert [container] == [entry.target_id for entry in supervised.client.list()]


def test_not_in_a_container_that_has_ended(supervised, container):
    supervised.client.signal(container, signal.SIGKILL)
    supervised.events.wait(Exited, container)
    attached = supervised.attach("e1")
    with pytest.raises(NotFound):
        supervised.exec(container, "e1", "true")
    supervised.client.acknowledge("e1")
    assert b"" == attached.read_to_end()


def test_an_id_is_used_once_at_a_time(supervised, container):
    supervised.exec(container, "e1", "sleep 600")
    with pytest.raises(Conflict):
        supervised.exec(container, "e1", "true")


def test_many_at_once(supervised, container):
    names = [f"e{number}" for number in range(20)]
    attached = {name: supervised.attach(name) for name in names}
    for name in names:
        supervised.exec(container, name, f"echo {name}")
    for name in names:
        assert 0 == supervised.end_of(name).status
        assert (f"{name}\n".encode(), b"") == attached[name].streams()
