"""Containers by id and name, and who waits for them."""

import select
from pathlib import Path

import pytest

from real_engine.daemon.containers.record import Record, new_id
from real_engine.daemon.containers.table import ContainerTable
from real_engine.errors import Conflict, NotFound


def _record(name: str, identifier: str = "") -> Record:
    return Record(
        id=identifier or new_id(),
        name=name,
        created="2026-01-01T00:00:00Z",
        image_id="",
        path="sh",
        args=[],
        config={"Tty": False, "Labels": {}, "Image": ""},
        host_config={"NetworkMode": "none"},
        networks={},
        mounts=[],
        layers=[],
    )


def test_found_by_id_name_and_prefix(tmp_path: Path) -> None:
    table = ContainerTable(tmp_path)
    record = _record("web")
    table.add(record)
    for name in (record.id, "web", "/web", record.id[:5]):
        assert record is table.get(name)
    with pytest.raises(NotFound, match="No such container: nosuch"):
        table.get("nosuch")


def test_a_prefix_of_several_ids_is_ambiguous(tmp_path: Path) -> None:
    table = ContainerTable(tmp_path)
    for last in "ab":
        table.add(_record(f"n{last}", "cafe" + "0" * 59 + last))
    with pytest.raises(Conflict, match="Multiple IDs found with provided prefix: cafe"):
        table.get("cafe")


def test_a_name_is_held_while_its_container_is_made_and_free_again_after_a_failure(tmp_path: Path) -> None:
    table = ContainerTable(tmp_path)
    with pytest.raises(RuntimeError), table.naming("web", "1" * 64):  # noqa: PT012 -- the second name is the point
        with pytest.raises(Conflict, match='"/web" is already in use'), table.naming("web", "2" * 64):
            pass
        raise RuntimeError
    with table.naming("web", "3" * 64) as name:
        assert "web" == name


def test_names_that_nobody_chose_are_all_different(tmp_path: Path) -> None:
    table = ContainerTable(tmp_path)
    names = set()
    for number in range(200):
        with table.naming("", f"{number:064}") as name:
            names.add(name)
    assert 200 == len(names)


def test_a_waiter_is_woken_by_its_condition_alone(tmp_path: Path) -> None:
    table = ContainerTable(tmp_path)
    record = _record("web")
    table.add(record)
    with table.waiting(record, "next-exit") as exit_waiter, table.waiting(record, "removed") as removal_waiter:
        table.wake(record, ("next-exit",), 7)
        assert [exit_waiter] == select.select([exit_waiter, removal_waiter], [], [], 0)[0]
        assert 7 == exit_waiter.exit_code
        table.remove(record)
        assert [exit_waiter, removal_waiter] == select.select([exit_waiter, removal_waiter], [], [], 0)[0]
    assert table.find("web") is None


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = _record("web")
    record.state.running, record.state.pid = True, 5
    record.save(tmp_path)
    again = Record.load(tmp_path)
    assert record.to_json() == again.to_json()
    assert "running" == again.state.status
    assert 0o600 == (tmp_path / "container.json").stat().st_mode & 0o777


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": "x"}'])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "container.json").write_text(text)
    with pytest.raises(ValueError, match=r"no record|Expecting"):
        Record.load(tmp_path)


def test_a_name_that_is_held_for_one_that_is_being_made_names_nothing_yet(tmp_path: Path) -> None:
    table = ContainerTable(tmp_path)
    record = _record("web")
    with table.naming("web", record.id):
        with pytest.raises(NotFound, match="No such container: web"):
            table.get("web")
        assert table.find("web") is None
        table.add(record)
    assert record is table.get("web")


def test_one_that_was_removed_takes_no_name(tmp_path: Path) -> None:
    table = ContainerTable(tmp_path)
    record, other = _record("web"), _record("db")
    table.add(record)
    table.remove(record)
    with pytest.raises(NotFound):
        table.rename(record, "free")
    table.add(other)
    table.rename(other, "free")  # it is
