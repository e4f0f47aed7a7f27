"""What a daemon finds when it starts: containers that run, ends that it did not see, and what was half done.

And what it has when its supervisor has been killed: containers that ran, and do no more.
"""

import time
from typing import TYPE_CHECKING

from real_engine.daemon.containers.health import has_check
from real_engine.daemon.containers.lifecycle import note_start
from real_engine.daemon.containers.record import Health, Record
from real_engine.errors import EngineError, Unavailable
from real_engine.supervisor.client import Entry
from real_engine.supervisor.exit_record import read_exit
from real_engine.times import from_rfc3339, now, rfc3339

if TYPE_CHECKING:
    from real_engine.daemon.containers.service import Containers

_START_SECONDS = 30.0  # how long a start that the earlier daemon has asked for may take
_LOOK_SECONDS = 0.02
_KILLED = 128 + 9


def adopt(containers: "Containers") -> None:
    """Take over what an earlier daemon has left; containers that are always to run are started again."""
    entries = _entries(containers)
    for directory in sorted(containers.table.directory.iterdir()):
        try:
            record = Record.load(directory)
        except FileNotFoundError:
            containers.removal.discard_unmade(directory)
            continue
        except (OSError, ValueError) as error:
            containers.daemon.log_error(f"cannot read the container in {directory}: {error}", error)
            continue
        containers.table.add(record)
        containers.storage.known(record)
    for entry in entries.values():
        if containers.table.find(entry.target_id) is None and not entry.running:
            # A program that was executed for a client of the earlier daemon: whoever asked for it has gone.
            containers.supervisor.acknowledge(entry.target_id)
    for record in containers.table:
        try:
            _adopt(containers, record, entries.get(record.id))
        except (EngineError, OSError) as error:  # the others are to be known all the same
            containers.daemon.log_error(f"cannot take over {record.name}: {error}", error)
    containers.restarts.resume(containers.table)


def mourn(containers: "Containers") -> None:
    """The supervisor has been killed, and all containers with it: note that they have ended.

    Another supervisor is started at once: a container that was paused ends only when that one thaws what it finds.
    """
    finished = now()
    containers.daemon.restart_supervisor()
    try:
        _ = containers.supervisor  # made when it is asked for
    except EngineError as error:
        containers.daemon.log_error(f"cannot start another supervisor: {error}", error)
    for record in containers.table:
        with record.lock:
            if record.state.running and not record.state.restarting and not _is_known(containers, record):
                containers.lifecycle.ended(record, _KILLED, False, finished)


def _entries(containers: "Containers") -> dict[str, Entry]:
    """What the supervisor knows, by id, when no start is under way in it any more."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        entries = containers.supervisor.list()
        if time.monotonic() > deadline or not any(entry.state == "starting" for entry in entries):
            return {entry.target_id: entry for entry in entries}
        time.sleep(_LOOK_SECONDS)


def _is_known(containers: "Containers", record: Record) -> bool:
    """Whether the new supervisor has the container: it was started there since the old one was lost."""
    try:
        entries = containers.supervisor.list()
    except Unavailable:
        return False
    return any(entry.target_id == record.id and entry.state != "created" for entry in entries)


def _adopt(containers: "Containers", record: Record, entry: Entry | None) -> None:
    with record.lock:
        state = record.state
        if entry is not None and entry.state == "created":
            entry = None  # a client is attached to what has not been started
        if entry is not None and entry.started_at and rfc3339(entry.started_at) != state.started_at:
            # The daemon was killed between the start and the note of it.
            removing = state.removing
            note_start(record, entry.pid, entry.started_at, entry.group_paths)
            state = record.state
            state.removing = removing
        if entry is not None and entry.running:
            _take_over(containers, record, entry)
        elif state.running and not state.restarting:
            # It ended while no daemon was there; the supervisor, or the file that it left, knows how.
            end = (
                _end_on_disk(containers, record)
                if entry is None
                else (entry.status, entry.oom_killed, entry.finished_at)
            )
            containers.lifecycle.ended(record, *end)
        if entry is not None and not entry.running:
            containers.supervisor.acknowledge(record.id)
    if state.dead:
        return
    if state.removing:
        state.removing = False
        auto = record.host_config["AutoRemove"]
        containers.removal.remove(record.id, force=True, volumes=record.volumes_go or auto)
    elif record.host_config["AutoRemove"] and not state.running and record.started_once:
        containers.removal.remove(record.id, volumes=True)


def _take_over(containers: "Containers", record: Record, entry: Entry) -> None:
    state = record.state
    state.running, state.restarting, state.pid = True, False, entry.pid
    state.paused = entry.paused  # it may have been killed between that and the note of it, too
    containers.storage.adopt(record)
    containers.networking.adopt(record)
    if has_check(record):
        record.health = record.health or Health()
    containers.lifecycle.check_health(record)
    containers.keep(record)


def _end_on_disk(containers: "Containers", record: Record) -> tuple[int, bool, int]:
    """How it ended by the supervisor's file; by SIGKILL where there is none: supervisor and machine went down."""
    end = read_exit(containers.path(record))
    if end is not None and end.finished_at >= from_rfc3339(record.state.started_at):
        return end.status, end.oom_killed, end.finished_at
    return _KILLED, False, now()
