"""Clients that are attached: their input and its end, terminals, and how they get away."""

import hashlib
import os
import signal
import socket
import time

import pytest

from real_engine.errors import InvalidParameter
from real_engine.supervisor.client import Detached, Exited

pytestmark = pytest.mark.root


def test_input_and_its_end(supervised):
    """As `echo … | docker run -i`: the client's end of input is the program's, and output goes on after it."""
    container = supervised.new_id()
    attached = supervised.attach(container, stdin=True)
    supervised.start(container, "cat; echo over", open_stdin=True, stdin_once=True)
    attached.send(b"one\n")
    attached.send(b"two\n")
    attached.end_input()
    assert 0 == supervised.end_of(container).status
    assert (b"one\ntwo\nover\n", b"") == attached.streams()


def test_what_was_sent_before_the_start(supervised):
    container = supervised.new_id()
    attached = supervised.attach(container, stdin=True, pending_input=b"early ")
    attached.send(b"typed")
    attached.end_input()
    supervised.start(container, "cat", open_stdin=True, stdin_once=True)
    supervised.end_of(container)
    assert (b"early typed", b"") == attached.streams()


def test_a_client_that_goes_is_the_end_of_input(supervised):
    container = supervised.new_id()
    attached = supervised.attach(container, stdin=True)
    supervised.start(container, "cat; exit 3", open_stdin=True, stdin_once=True)
    attached.send(b"x")
    attached.close()
    assert 3 == supervised.end_of(container).status


def test_without_stdin_once_input_goes_on_with_the_next_client(supervised):
    """As with Docker, a client's session ends with its input then."""
    container = supervised.new_id()
    supervised.start(container, "cat", open_stdin=True)
    first = supervised.attach(container, stdin=True, framed=False)
    first.send(b"first\n")
    first.read_until(b"first\n")
    first.end_input()
    assert b"" == first.read_to_end()
    second = supervised.attach(container, stdin=True, framed=False)
    second.send(b"second\n")
    second.read_until(b"second\n")
    assert supervised.client.list()[0].running
    supervised.client.close_stdin(container)
    assert 0 == supervised.end_of(container).status


def test_half_close_of_a_client_without_input(supervised):
    """`docker run` shuts its writing side at once; that ends nothing."""
    container = supervised.new_id()
    attached = supervised.attach(container)
    attached.end_input()
    supervised.start(container, "sleep 0.2; echo late")
    supervised.end_of(container)
    assert (b"late\n", b"") == attached.streams()


def test_without_open_stdin_the_program_reads_nothing(supervised):
    assert (0, b"", b"") == supervised.run("cat")


def test_a_program_that_closes_its_input(supervised):
    container = supervised.new_id()
    attached = supervised.attach(container, stdin=True)
    supervised.start(container, "exec <&-; echo closed; sleep 0.3; echo end", open_stdin=True, stdin_once=True)
    attached.send(b"x" * 200_000)  # more than a pipe holds, and nobody reads it
    attached.end_input()
    assert 0 == supervised.end_of(container).status
    assert (b"closed\nend\n", b"") == attached.streams()


def test_much_input_to_a_program_that_reads_slowly(supervised):
    container = supervised.new_id()
    attached = supervised.attach(container, stdin=True)
    supervised.start(container, "sleep 0.3; md5sum", open_stdin=True, stdin_once=True)
    data = os.urandom(3_000_000)
    attached.send(data)
    attached.end_input()
    supervised.end_of(container)
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest().encode()
    assert (digest + b"  -\n", b"") == attached.streams()


def test_a_tcp_client(supervised):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    container = supervised.new_id()
    with ours, theirs:
        supervised.client.attach(container, theirs.fileno(), stdin=True, stdout=True, stderr=True, framed=False)
        theirs.close()
        ours.sendall(b"unread input, which must not make TCP throw the output away")
        supervised.start(container, "seq 1 50000", open_stdin=True, stdin_once=True)
        supervised.end_of(container)
        received = b""
        while data := ours.recv(1 << 16):
            received += data
    assert b"".join(b"%d\n" % number for number in range(1, 50_001)) == received


def test_another_descriptor_of_the_connection_does_not_keep_it_open(supervised):
    container = supervised.new_id()
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    with ours, theirs:
        supervised.client.attach(container, theirs.fileno(), stdin=False, stdout=True, stderr=True, framed=False)
        supervised.start(container, "echo x")
        supervised.end_of(container)
        assert b"x\n" == ours.recv(100)
        assert b"" == ours.recv(100)


def test_attaching_for_the_next_run_before_the_end_of_the_last_is_acknowledged(supervised):
    container = supervised.new_id()
    first = supervised.attach(container)
    supervised.start(container, "echo once")
    supervised.events.wait(Exited, container)
    again = supervised.attach(container)
    assert ["created", "exited"] == sorted(entry.state for entry in supervised.client.list())
    supervised.client.acknowledge(container)  # of the end that was told
    assert (b"once\n", b"") == first.streams()
    supervised.events.forget()
    supervised.start(container, "echo again")
    supervised.end_of(container)
    assert (b"again\n", b"") == again.streams()


def test_starting_again_is_an_acknowledgement(supervised):
    container = supervised.new_id()
    first = supervised.attach(container)
    supervised.start(container, "echo once")
    supervised.events.wait(Exited, container)
    supervised.start(container, "sleep 600")
    assert (b"once\n", b"") == first.streams()
    supervised.client.acknowledge(container)  # late, and harmless
    assert ["running"] == [entry.state for entry in supervised.client.list()]


def test_a_client_of_what_is_never_started(supervised):
    attached = supervised.attach("never1")
    supervised.client.acknowledge("never1")
    assert b"" == attached.read_to_end()
    gone = supervised.attach("never2")
    gone.close()
    time.sleep(0.05)
    assert [] == supervised.client.list()


def test_what_is_no_connection(supervised):
    receive, send = os.pipe2(os.O_CLOEXEC)
    with pytest.raises(InvalidParameter, match="attached by its connection"):
        supervised.client.attach("c1", send, stdin=False, stdout=True, stderr=True, framed=True)
    os.close(send)
    assert b"" == os.read(receive, 1)  # nor is it kept
    os.close(receive)
    assert [] == supervised.client.list()


# --- terminals -------------------------------------------------------------------------------------------------------


def test_a_terminal_echoes_and_has_a_size(supervised):
    container = supervised.new_id()
    attached = supervised.attach(container, stdin=True, framed=False)
    supervised.start(
        container, "sh", "-i", tty=True, open_stdin=True, terminal_size=(33, 77), environment={"PS1": "> "}
    )
    attached.read_until(b"> ")
    attached.send(b"stty size; tty\n")
    output = attached.read_until(b"/dev/pts/0\r\n> ")
    assert b"stty size; tty\r\n33 77\r\n" in output
    attached.send(b"trap 'stty size' WINCH; sleep 2 & wait\n")
    attached.read_until(b"wait\r\n")
    time.sleep(0.1)
    supervised.client.resize(container, 40, 100)
    attached.read_until(b"40 100\r\n")
    attached.send(b"exit 9\n")
    assert 9 == supervised.end_of(container).status
    assert attached.read_to_end().endswith(b"exit 9\r\n")
    assert any(b"40 100" in data for _, data in supervised.logged(container))


def test_interrupt_by_the_terminal(supervised):
    container = supervised.new_id()
    attached = supervised.attach(container, stdin=True, framed=False)
    script = "trap 'echo interrupted; exit 4' INT; echo ready; while :; do sleep 0.05; done"
    supervised.start(container, script, tty=True, open_stdin=True, stdin_once=True)
    attached.read_until(b"ready\r\n")
    attached.send(b"\x03")
    assert 4 == supervised.end_of(container).status
    assert b"interrupted\r\n" in attached.read_to_end()


def test_all_output_of_a_terminal_comes(supervised):
    container = supervised.new_id()
    attached = supervised.attach(container, framed=False)
    supervised.start(container, "seq 1 20000", tty=True)
    supervised.end_of(container)
    assert b"".join(b"%d\r\n" % number for number in range(1, 20_001)) == attached.read_to_end()


@pytest.mark.parametrize(("keys", "typed"), [(b"", b"\x10\x11"), (b"ab", b"ab"), (b"x", b"x")])
def test_detach_keys(supervised, keys, typed):
    container = supervised.new_id()
    attached = supervised.attach(container, stdin=True, framed=False, detach_keys=keys)
    supervised.start(container, "cat", tty=True, open_stdin=True, stdin_once=True)
    attached.send(b"hello\n")
    attached.read_until(b"hello\r\nhello\r\n")
    for key in typed:  # one by one, as a person does
        attached.send(bytes([key]))
        time.sleep(0.01)
    assert b"" == attached.read_to_end()
    event = supervised.events.wait(Detached, container)
    assert container == event.container_id
    again = supervised.attach(container, stdin=True, framed=False)
    again.send(b"still here\n")
    again.read_until(b"still here\r\n")
    supervised.client.signal(container, signal.SIGKILL)
    assert 137 == supervised.end_of(container).status


def test_detach_keys_without_a_terminal_are_input(supervised):
    container = supervised.new_id()
    attached = supervised.attach(container, stdin=True)
    supervised.start(container, "cat", open_stdin=True, stdin_once=True)
    attached.send(b"\x10\x11")
    attached.end_input()
    supervised.end_of(container)
    assert (b"\x10\x11", b"") == attached.streams()


def test_resizing_what_has_no_terminal_is_no_error(supervised):
    container = supervised.new_id()
    supervised.start(container, "sleep 600")
    supervised.client.resize(container, 10, 10)
