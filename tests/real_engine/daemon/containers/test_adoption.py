"""What a new daemon makes of what it finds, and what is left of containers when their supervisor is killed."""

from collections.abc import Callable
from typing import Any

import pytest

from real_engine.daemon.app import Daemon
from real_engine.daemon.containers import adoption
from real_engine.daemon.containers.create import create
from real_engine.daemon.containers.lifecycle import note_start
from real_engine.daemon.containers.record import Record, new_id
from real_engine.supervisor.client import Entry
from real_engine.times import rfc3339

pytestmark = [pytest.mark.root]

STARTED, FINISHED = 1_700_000_000_000_000_000, 1_700_000_005_000_000_000


class Supervisor:
    """Knows what it was told to know."""

    def __init__(self, *lists: list[Entry]) -> None:
        self._lists = list(lists)
        self.acknowledged: list[str] = []

    def list(self) -> list[Entry]:
        return self._lists.pop(0) if len(self._lists) > 1 else self._lists[0]

    def acknowledge(self, target_id: str) -> None:
        self.acknowledged.append(target_id)

    def signal(self, _target: str, _number: int) -> None:
        """Nothing comes of it."""

    def leave(self) -> None:
        """There is no connection."""

    def close(self) -> None:
        """There is no connection."""


def _entry(target: str, state: str, **more: Any) -> Entry:
    values = {
        "container_id": target,
        "paused": False,
        "pid": 0 if state == "created" else 1,
        "started_at": 0 if state in ("created", "starting") else STARTED,
        "group_paths": {},
        "status": 0,
        "oom_killed": False,
        "finished_at": FINISHED if state == "exited" else 0,
    }
    return Entry(target_id=target, state=state, **{**values, **more})


@pytest.fixture
def left(daemon: Daemon) -> Callable[..., Record]:
    """A container as an earlier daemon has left it: on disk, and not known to this one."""

    def make(*, running: bool = False, **host: Any) -> Record:
        containers = daemon.containers
        body = {"Cmd": ["x"], "HostConfig": {"NetworkMode": "none", **host}}
        record, _ = create(containers, body, "", from_nothing=True)
        if running:
            note_start(record, 1, STARTED, {})
            record.save(containers.path(record))
        containers.table.remove(record)
        return record

    return make


def _adopted(daemon: Daemon, supervisor: Supervisor, record: Record) -> Record:
    daemon._services["supervisor"] = supervisor
    daemon.containers.adopt()
    return daemon.containers.get(record.id)


def test_a_start_that_is_under_way_is_waited_for(daemon: Daemon, left: Callable[..., Record]) -> None:
    record = left()
    supervisor = Supervisor([_entry(record.id, "starting")], [_entry(record.id, "running")])
    state = _adopted(daemon, supervisor, record).state
    assert ("running", 1, rfc3339(STARTED)) == (state.status, state.pid, state.started_at)


def test_a_run_of_which_nothing_is_noted(daemon: Daemon, left: Callable[..., Record]) -> None:
    record = left()
    supervisor = Supervisor([_entry(record.id, "exited", status=3)])
    state = _adopted(daemon, supervisor, record).state
    assert ("exited", 3, rfc3339(STARTED)) == (state.status, state.exit_code, state.started_at)
    assert [record.id] == supervisor.acknowledged


def test_an_end_that_is_noted_but_not_acknowledged(daemon: Daemon, left: Callable[..., Record]) -> None:
    record = left()
    note_start(record, 0, STARTED, {})
    record.state.running, record.state.exit_code = False, 5
    record.save(daemon.containers.path(record))
    supervisor = Supervisor([_entry(record.id, "exited", status=3)])
    state = _adopted(daemon, supervisor, record).state
    assert ("exited", 5) == (state.status, state.exit_code)
    assert [record.id] == supervisor.acknowledged


def test_one_that_goes_at_its_end_is_not_removed_while_its_second_run_is_not_noted(
    daemon: Daemon, left: Callable[..., Record]
) -> None:
    record = left(AutoRemove=True)
    record.started_once = True
    record.save(daemon.containers.path(record))
    assert _adopted(daemon, Supervisor([_entry(record.id, "running")]), record).state.running


def test_programs_executed_for_clients_of_the_earlier_daemon_are_let_go(
    daemon: Daemon, left: Callable[..., Record]
) -> None:
    record = left(running=True)
    ended, prepared, runs = new_id(), new_id(), new_id()
    entries = [
        _entry(record.id, "running"),
        _entry(ended, "exited", container_id=record.id),
        _entry(prepared, "created"),
        _entry(runs, "running", container_id=record.id),
    ]
    supervisor = Supervisor(entries)
    _adopted(daemon, supervisor, record)
    assert [ended, prepared] == supervisor.acknowledged


def test_who_is_attached_to_what_was_not_started_stays(daemon: Daemon, left: Callable[..., Record]) -> None:
    record = left()
    supervisor = Supervisor([_entry(record.id, "created")])
    assert "created" == _adopted(daemon, supervisor, record).state.status
    assert [] == supervisor.acknowledged


def test_a_killed_supervisor_takes_along_what_ran_in_it_and_nothing_else(
    daemon: Daemon, left: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One container ran in the killed one, and another has been started in its successor by now."""
    gone, again = left(running=True), left(running=True)
    before = Supervisor([_entry(gone.id, "running"), _entry(again.id, "running")])
    gone, again = _adopted(daemon, before, gone), daemon.containers.get(again.id)
    after = Supervisor([_entry(again.id, "running"), _entry(gone.id, "created")])
    monkeypatch.setattr(daemon, "restart_supervisor", lambda: daemon._services.update(supervisor=after))
    adoption.mourn(daemon.containers)
    assert ("exited", 137) == (gone.state.status, gone.state.exit_code)
    assert "running" == again.state.status
