"""A container that prepares itself for the moment in which the engine comes in (`docker exec`)."""

import encodings
import os
import subprocess
import sys
from pathlib import Path

import pytest

from real_engine.container import launch, users
from real_engine.container.container import Container, StartError
from real_engine.container.spec import ContainerSpec, ExecSpec

ID = "security-entry-tests"


@pytest.fixture
def container(engine, image, tmp_path, leftovers):
    """A container that sleeps: (it, its specification, its upper directory)."""
    upper = tmp_path / "upper"
    spec = ContainerSpec(image.layers, ("sleep", "600"), upper=upper, work=tmp_path / "work", hostname="home")
    with engine.create(spec, ID) as started:
        started.begin((0, 1, 2))
        started.complete()
        yield started, spec, upper


def enter(engine, container: tuple[Container, ContainerSpec, Path], user: str = "") -> int:
    started, spec, _ = container
    program = ExecSpec(("true",), user=user)
    with engine.enter(started.pidfd, started.id, spec, program) as entry:
        entry.begin((0, 1, 2))
        entry.complete()
        return int(entry.wait(timeout_seconds=20))


def write(started: Container, path: Path, text: str) -> None:
    """As a process of the container would, which may be anybody's who is in there."""
    inside = Path(f"/proc/{started.pid}/root{path}")
    inside.parent.mkdir(parents=True, exist_ok=True)
    inside.write_text(text)


def put_traps(started: Container, seen: str) -> None:
    """Sources of ours that are written in an encoding of the container's, which tells that it was imported."""
    for module in (users, launch, sys.modules[ExecSpec.__module__], sys.modules["real_engine.container.confinement"]):
        write(started, Path(str(module.__file__)), "# -*- coding: trap -*-\n" * 2)
    for name in ("trap", "idna", "unicode_escape"):
        write(started, Path(encodings.__path__[0]) / f"{name}.py", f"open({seen!r}, 'w').write('imported')\n")


@pytest.mark.root
def test_a_step_that_fails_in_the_container_reads_no_source_of_ours_there(engine, container):
    # The traceback module reads the lines that it is to show, in the encoding that the file itself names.
    put_traps(container[0], "/seen")
    write(container[0], Path("/etc/passwd"), f"root:x:{'9' * 5000}:0:root:/:/bin/sh\n")
    with pytest.raises(StartError, match="unable to find user root"):
        enter(engine, container, user="root")
    assert not (container[2] / "seen").exists()


@pytest.mark.root
def test_what_only_a_bug_can_raise_reads_no_source_either(engine, container, monkeypatch):
    def broken(*_: object) -> object:
        raise RuntimeError("a bug")

    put_traps(container[0], "/seen")
    monkeypatch.setattr("real_engine.container.confinement.look_up", broken)
    with pytest.raises(StartError, match=r"RuntimeError: a bug \(test_security_entry.py:\d+\)"):
        enter(engine, container)
    assert not (container[2] / "seen").exists()


@pytest.mark.root
def test_nothing_is_imported_once_a_process_is_in_the_container(engine, container, monkeypatch):
    def importing(*_: object) -> object:
        return "é".encode("trap")

    put_traps(container[0], "/seen")
    monkeypatch.setattr("real_engine.container.confinement.look_up", importing)
    with pytest.raises(StartError, match="unknown encoding: trap"):
        enter(engine, container)
    assert not (container[2] / "seen").exists()


@pytest.mark.root
def test_nothing_is_imported_on_the_way_into_a_new_container(run, monkeypatch):
    def importing(*_: object) -> None:
        __import__("this")

    monkeypatch.setattr("real_engine.linux.capabilities.drop_bounding", importing)
    with pytest.raises(StartError, match="this is not imported any more"):
        run("true")
    assert subprocess.run([sys.executable, "-c", "import this"], stdout=subprocess.DEVNULL, check=True).returncode == 0


def test_numbers_of_thousands_of_digits_are_no_numbers():
    passwd = f"root:x:{'9' * 5000}:0:root:/:/bin/sh\nroot:x:0:0:root:/root:/bin/sh\n".encode()
    assert (0, 0, (0,), "/root") == tuple(users.look_up("root", passwd, b""))
    assert 1000 == users.look_up("0000000000001000", b"", b"").uid
    assert 0 == users.look_up("000", b"", b"").uid
    for user in ("9" * 5000, str(2**32), "\u0663"):
        with pytest.raises(LookupError):
            users.look_up(user, b"", b"")


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\r"])
def test_a_line_of_passwd_ends_at_a_newline_only(separator):
    # Some chfn(1) let a user put such a character into the name that finger(1) shows.
    passwd = f"joe:x:1000:1000:Joe{separator}evil:x:0:0::/:/home/joe:/bin/sh\n".encode()
    with pytest.raises(LookupError):
        users.look_up("evil", passwd, b"")
    assert os.getuid() or 1000 == users.look_up("joe", passwd, b"").uid
