"""A container that is removed while something else is done with it: that is told, and nothing of it stays."""

import contextlib
import io
import select
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from real_engine.daemon.app import Daemon
from real_engine.daemon.containers import files, lifecycle
from real_engine.daemon.containers.create import create
from real_engine.daemon.containers.lifecycle import note_start
from real_engine.daemon.containers.record import Record
from real_engine.errors import Conflict, EngineError, NotFound

pytestmark = [pytest.mark.root]


def _make(daemon: Daemon, volumes: Any = None) -> Record:
    body = {"Cmd": ["x"], "Volumes": volumes, "HostConfig": {"NetworkMode": "none"}}
    return create(daemon.containers, body, "", from_nothing=True)[0]


def _upload(daemon: Daemon, record: Record) -> None:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    body.seek(0)
    files.write_archive(daemon.containers, record, "/", body, keep_kinds=False, copy_owner=False)


@pytest.mark.parametrize(
    "act",
    [
        lambda daemon, record: files.path_status(daemon.containers, record, "/etc"),
        lambda daemon, record: files.read_archive(daemon.containers, record, "/etc"),
        lambda daemon, record: files.export(daemon.containers, record),
        lambda daemon, record: files.changes(daemon.containers, record),
        _upload,
        lambda daemon, record: daemon.containers.execs.make(record, {"Cmd": ["true"]}),
        lambda daemon, record: daemon.containers.storage.sizes(record),
    ],
    ids=["stat", "read", "export", "changes", "write", "exec", "size"],
)
@pytest.mark.parametrize("volumes", [None, {"/v": {}}], ids=["plain", "with a volume"])
def test_it_is_answered_that_there_is_no_such_container(
    daemon: Daemon, act: Callable[[Daemon, Record], object], volumes: Any
) -> None:
    record = _make(daemon, volumes)
    if act is not _upload:
        with contextlib.suppress(EngineError):
            act(daemon, record)
    daemon.containers.removal.remove(record.id, volumes=True)
    with pytest.raises(NotFound, match=f"^No such container: {record.id}$"):
        act(daemon, record)
    assert [] == daemon.containers.execs.of(record)


def test_a_volume_that_is_being_read_goes_with_its_reader(daemon: Daemon) -> None:
    record = _make(daemon, volumes={"/v": {}})
    status, archive = files.read_archive(daemon.containers, record, "/v")
    assert "v" == status["name"]
    daemon.containers.removal.remove(record.id, volumes=True)
    b"".join(archive)
    assert [] == list((daemon.config.data_root / "volumes").glob("*/_data"))


def test_a_volume_that_is_to_stay_stays_though_it_is_read_meanwhile(daemon: Daemon) -> None:
    record = _make(daemon, volumes={"/v": {}})
    _, archive = files.read_archive(daemon.containers, record, "/v")
    daemon.containers.removal.remove(record.id, volumes=False)
    b"".join(archive)
    assert 1 == len(list((daemon.config.data_root / "volumes").glob("*/_data")))


@pytest.mark.parametrize("condition", ["removed", "next-exit", "not-running"])
def test_who_waits_for_one_that_was_removed_just_now_does_not_wait(
    daemon: Daemon, condition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = _make(daemon)
    daemon.containers.removal.remove(record.id)
    monkeypatch.setattr(daemon.containers.table, "get", lambda _: record)  # it was found before that
    with daemon.containers.waiting(record.id, condition) as waiter:
        assert [waiter] == select.select([waiter], [], [], 0)[0]


class Deaf:
    """A supervisor whose containers end by no signal."""

    def signal(self, _target: str, _number: int) -> None:
        """Nothing comes of it."""

    def leave(self) -> None:
        """There is no connection."""

    def close(self) -> None:
        """There is no connection."""


def test_one_that_does_not_end_is_not_removed(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon._services["supervisor"] = Deaf()
    monkeypatch.setattr(lifecycle, "_KILL_SECONDS", 0.01)
    monkeypatch.setattr(lifecycle, "_LOOK_SECONDS", 0.01)
    record = _make(daemon)
    note_start(record, 1, 1_700_000_000_000_000_000, {})
    for _ in range(2):  # and it can be tried again
        with pytest.raises(EngineError, match="did not receive an exit event"):
            daemon.containers.removal.remove(record.id, force=True)
        assert record is daemon.containers.get(record.id)
        assert ("running", False) == (record.state.status, record.state.removing)


def test_one_that_is_being_removed_is_neither_paused_nor_started(daemon: Daemon) -> None:
    record = _make(daemon)
    note_start(record, 1, 1_700_000_000_000_000_000, {})
    record.state.removing = True
    with pytest.raises(Conflict, match="marked for removal"):
        daemon.containers.lifecycle.pause(record.id)
    with pytest.raises(Conflict, match="marked for removal"):
        daemon.containers.lifecycle.start(record.id)


def test_a_name_that_cannot_be_written_down_is_not_given(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    record = _make(daemon)
    before = record.name

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Record, "save", full)
    with pytest.raises(OSError, match="No space"):
        daemon.containers.rename(record.id, "other")
    assert before == record.name
    assert record is daemon.containers.get(before)
    assert daemon.containers.table.find("other") is None
