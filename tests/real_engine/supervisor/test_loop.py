"""The event loop: what is ready, what is due, long work in pieces, and callbacks that fail."""

import os
import time

import pytest

from real_engine.supervisor.loop import GONE, READABLE, Loop


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def pipe():
    receive, send = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    yield receive, send
    for descriptor in (receive, send):
        os.close(descriptor)


def test_timers_in_order(loop):
    seen = []
    for seconds in (0.03, 0.01, 0.02):
        loop.call_later(seconds, lambda seconds=seconds: seen.append(seconds))
    loop.call_later(0.015, lambda: seen.append("cancelled")).cancel()
    loop.call_later(0.04, loop.stop)
    begin = time.monotonic()
    loop.run()
    assert [0.01, 0.02, 0.03] == seen
    assert time.monotonic() - begin >= 0.04


def test_a_ready_descriptor(loop, pipe):
    receive, send = pipe
    seen = []

    def ready(events):
        seen.append((events & READABLE, os.read(receive, 10)))
        loop.stop()

    loop.watch(receive, READABLE, ready)
    loop.call_later(0.01, lambda: os.write(send, b"x"))
    loop.run()
    assert [(READABLE, b"x")] == seen


def test_an_end_is_told_whatever_was_asked_for(loop):
    receive, send = os.pipe2(os.O_CLOEXEC)
    seen = []
    loop.watch(receive, 0, lambda events: (seen.append(events & GONE), loop.stop()))
    os.close(send)
    loop.run()
    assert all(seen)
    os.close(receive)


def test_what_is_forgotten_in_a_turn_is_not_called_in_it(loop):
    """Not even if its number has been given to another since, for what is ready was so for the first."""
    pipes = [os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) for _ in range(2)]
    seen = []

    def ready(mine, other):
        def call(_):
            seen.append(mine)
            loop.forget(other)
            loop.watch(other, READABLE, lambda _: seen.append("stale"))
            loop.forget(mine)
            loop.call_later(0, lambda: loop.forget(other))
            loop.call_later(0.01, loop.stop)

        return call

    (first, _), (second, _) = pipes
    loop.watch(first, READABLE, ready(first, second))
    loop.watch(second, READABLE, ready(second, first))
    for _, send in pipes:
        os.write(send, b"x")
    loop.run()
    assert 1 == len(seen)
    for receive, send in pipes:
        os.close(receive)
        os.close(send)


def test_work_goes_on_between_other_things(loop, pipe):
    receive, send = pipe
    done = []

    def job():
        for number in range(200):
            done.append(number)
            if number == 100:
                os.write(send, b"x")
            yield

    def ready(_):
        os.read(receive, 10)
        done.append("ready")

    loop.watch(receive, READABLE, ready)
    loop.work(job())
    loop.call_later(0.2, loop.stop)
    loop.run()
    assert 102 == done.index("ready") or 101 == done.index("ready")
    assert [*range(200)] == [number for number in done if number != "ready"]


def test_a_callback_that_fails_ends_nothing_but_itself(loop, pipe, capsys):
    receive, send = pipe
    os.write(send, b"x")
    loop.watch(receive, READABLE, lambda _: 1 // 0)
    loop.call_later(0.01, lambda: [][0])
    loop.call_later(0.05, loop.stop)
    loop.run()
    complaints = capsys.readouterr().err
    assert 1 == complaints.count("ZeroDivisionError")
    assert 1 == complaints.count("IndexError")
