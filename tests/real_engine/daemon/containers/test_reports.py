"""What the supervisor tells is dealt with in its order, by the one whom it concerns, and nothing of it is lost."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from real_engine.daemon.app import Daemon
from real_engine.daemon.containers.lifecycle import note_start
from real_engine.daemon.containers.record import Record, new_id
from real_engine.supervisor.client import Event, Exited, LogFailed, LogRecovered, OutOfMemory
from real_engine.times import rfc3339

STARTED, FINISHED = 1_700_000_000_000_000_000, 1_700_000_005_000_000_000


class NoSupervisor:
    """Takes acknowledgements."""

    def __init__(self) -> None:
        self.acknowledged: list[str] = []

    def acknowledge(self, target_id: str) -> None:
        self.acknowledged.append(target_id)

    def leave(self) -> None:
        """There is no connection."""

    def close(self) -> None:
        """There is no connection."""


@pytest.fixture
def supervisor(daemon: Daemon) -> NoSupervisor:
    supervisor = NoSupervisor()
    daemon._services["supervisor"] = supervisor
    return supervisor


def _running(daemon: Daemon, **host: Any) -> Record:
    identifier = new_id()
    record = Record(
        id=identifier,
        name=f"n{identifier[:6]}",
        created="2026-01-01T00:00:00Z",
        image_id="",
        path="sh",
        args=[],
        config={"Tty": False, "Labels": {}, "Image": "", "Volumes": None},
        host_config={
            "NetworkMode": "none",
            "AutoRemove": False,
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            **host,
        },
        networks={},
        mounts=[],
        layers=[],
    )
    containers = daemon.containers
    containers.path(record).mkdir()
    containers.table.add(record)
    note_start(record, 1, STARTED, {})
    return record


def _exited(record: Record, *, oom_killed: bool = False, started_at: int = STARTED) -> Exited:
    return Exited(record.id, record.id, 7, 0, oom_killed, started_at, FINISHED)


def _actions(daemon: Daemon, record: Record) -> list[str]:
    subscription = daemon.events.subscribe(since=1)
    try:
        return [event.action for event in subscription.take() if event.actor_id == record.id]
    finally:
        subscription.close()


def _until(met: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_memory_that_runs_out_is_an_event_and_the_container_goes_on(daemon: Daemon, supervisor: NoSupervisor) -> None:
    record = _running(daemon)
    daemon.containers.on_event(OutOfMemory(record.id))
    _until(lambda: record.state.oom_killed)
    _until(lambda: ["oom"] == _actions(daemon, record))
    assert record.state.running
    daemon.containers.on_event(_exited(record, oom_killed=True))
    _until(lambda: [record.id] == supervisor.acknowledged)
    assert ["oom", "die"] == _actions(daemon, record)  # once is enough
    assert (7, True, False) == (record.state.exit_code, record.state.oom_killed, record.state.running)


def test_memory_that_ran_out_while_no_daemon_was_there_is_told_with_the_end(
    daemon: Daemon, supervisor: NoSupervisor
) -> None:
    record = _running(daemon)
    daemon.containers.on_event(_exited(record, oom_killed=True))
    _until(lambda: supervisor.acknowledged)
    assert ["oom", "die"] == _actions(daemon, record)


def test_reports_about_one_container_keep_their_order(daemon: Daemon, supervisor: NoSupervisor) -> None:
    record = _running(daemon)
    with record.lock:  # so the first has to wait, and others would pass it if they could
        for _ in range(5):
            daemon.containers.on_event(OutOfMemory(record.id))
        daemon.containers.on_event(_exited(record, oom_killed=True))
        time.sleep(0.05)
        assert [] == _actions(daemon, record)
    _until(lambda: supervisor.acknowledged)
    assert ["oom"] * 5 + ["die"] == _actions(daemon, record)


def test_many_that_wait_for_their_containers_hold_up_no_others(daemon: Daemon, supervisor: NoSupervisor) -> None:
    held, free = _running(daemon), _running(daemon)
    with held.lock:
        for _ in range(50):
            daemon.containers.on_event(OutOfMemory(held.id))
        daemon.containers.on_event(_exited(free))
        _until(lambda: [free.id] == supervisor.acknowledged)


def test_a_failing_log_is_told_in_the_daemons_log(
    daemon: Daemon, supervisor: NoSupervisor, caplog: pytest.LogCaptureFixture
) -> None:
    record = _running(daemon)
    with caplog.at_level(logging.ERROR, logger="onggi"):
        daemon.containers.on_event(LogFailed(record.id, "No space left on device"))
        daemon.containers.on_event(LogRecovered(record.id, 12))
        _until(lambda: 2 == len(caplog.messages))
    assert [
        f"the log of {record.name} cannot be written: No space left on device",
        f"the log of {record.name} is written again, and lacks 12 entries",
    ] == caplog.messages


def test_what_is_told_late_of_an_earlier_run_changes_nothing(daemon: Daemon, supervisor: NoSupervisor) -> None:
    record = _running(daemon)
    daemon.containers.on_event(_exited(record, started_at=STARTED - 1))
    _until(lambda: [record.id] == supervisor.acknowledged)
    assert (True, rfc3339(STARTED)) == (record.state.running, record.state.started_at)
    assert [] == _actions(daemon, record)


def test_a_report_about_a_removed_container_is_acknowledged(daemon: Daemon, supervisor: NoSupervisor) -> None:
    identifier = new_id()
    for event in (
        OutOfMemory(identifier),
        LogFailed(identifier, "x"),
        Exited(identifier, identifier, 0, 0, False, 1, 2),
    ):
        daemon.containers.on_event(event)
    _until(lambda: [identifier] == supervisor.acknowledged)


def test_a_daemon_that_ends_leaves_reports_to_the_next_one(
    daemon: Daemon, supervisor: NoSupervisor, caplog: pytest.LogCaptureFixture
) -> None:
    record = _running(daemon)
    told: list[Event] = [_exited(record), OutOfMemory(record.id)]
    closing = threading.Thread(target=daemon.containers.close)
    closing.start()
    closing.join(10)
    with caplog.at_level(logging.ERROR, logger="onggi"):
        for event in told:
            daemon.containers.on_event(event)
    assert ([], True, []) == (supervisor.acknowledged, record.state.running, caplog.messages)


def test_an_end_is_known_though_it_cannot_be_written_down(
    daemon: Daemon, supervisor: NoSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = _running(daemon)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Record, "save", full)
    with daemon.containers.waiting(record.id, "next-exit") as waiter:
        daemon.containers.on_event(_exited(record))
        _until(lambda: supervisor.acknowledged)
        assert 7 == waiter.exit_code
    assert "exited" == record.state.status
    assert ["die"] == _actions(daemon, record)
