"""What is read of a container from outside, without one."""

import stat

import pytest

from real_engine.daemon.containers.files import go_mode
from real_engine.daemon.containers.observation import parse_ps
from real_engine.daemon.containers.streams import DEFAULT_DETACH_KEYS, parse_detach_keys
from real_engine.errors import EngineError, InvalidParameter


def test_only_the_containers_lines_of_ps_are_shown_and_the_command_keeps_its_blanks() -> None:
    output = "UID PID CMD\nroot 10 sleep  100\nroot 11 sh\nroot x broken\n"
    found = parse_ps(output, {10})
    assert ["UID", "PID", "CMD"] == found["Titles"]
    assert [["root", "10", "sleep  100"]] == found["Processes"]


def test_without_a_column_of_pids_nothing_can_be_chosen() -> None:
    with pytest.raises(EngineError, match="PID"):
        parse_ps("CMD\nsh\n", {1})


@pytest.mark.parametrize(
    ("text", "keys"),
    [("", DEFAULT_DETACH_KEYS), ("ctrl-p,ctrl-q", b"\x10\x11"), ("a,b", b"ab"), ("ctrl-@", b"\0"), ("ctrl-[", b"\x1b")],
)
def test_detach_keys(text: str, keys: bytes) -> None:
    assert keys == parse_detach_keys(text)


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-pp", "abc", "ctrl-p,", "ctrl-1"])
def test_detach_keys_that_cannot_be(text: str) -> None:
    with pytest.raises(InvalidParameter, match="Invalid detach keys"):
        parse_detach_keys(text)


def test_modes_are_gos() -> None:
    assert 1 << 31 | 0o755 == go_mode(stat.S_IFDIR | 0o755)
    assert 1 << 27 | 0o777 == go_mode(stat.S_IFLNK | 0o777)
    assert 1 << 23 | 0o755 == go_mode(stat.S_IFREG | stat.S_ISUID | 0o755)
    assert 1 << 31 | 1 << 20 | 0o777 == go_mode(stat.S_IFDIR | stat.S_ISVTX | 0o777)
