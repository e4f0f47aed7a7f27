"""What the tests of guests share: the guest's files, and a stand-in for QEMU that is quick and does as it is told."""

import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from real_engine.errors import EngineError
from real_engine.virtual_machine.guest_files import GuestFiles, guest_files


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> GuestFiles:
    """A kernel and an initramfs to boot. Skips, with the reason, where they or QEMU are missing."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("no qemu-system-x86_64: run `tools/debian-packages test` as root")
    try:
        return guest_files(tmp_path_factory.mktemp("guest"))
    except EngineError as error:
        pytest.skip(str(error))


@pytest.fixture
def empty_files(tmp_path: Path) -> GuestFiles:
    """Files for a stand-in, which does not read them."""
    kernel, initramfs = tmp_path / "kernel", tmp_path / "initramfs"
    kernel.touch()
    initramfs.touch()
    return GuestFiles(kernel, initramfs, "none", tmp_path / "busybox")


_STAND_IN = """\
#!{python} -IS
import os, re, signal, sys, time
with open({calls!r}, "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
serial = int(re.search(r"id=serial,fd=(\\d+)", " ".join(sys.argv))[1])
def say(text): os.write(serial, text)
def access():
    thread = os.getpid() + 1
    print(f"{{thread}}@1.000000:fw_cfg_select 0x1 key 0x0000 'signature', ret: 1", file=sys.stderr, flush=True)
{behaviour}
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Gives a function that puts a Python script in QEMU's place, and returns the file with a line for each call."""
    if sys.platform != "linux" or shutil.which("setpriv") is None:
        pytest.skip("needs Linux and setpriv of util-linux")
    directory = tmp_path / "bin"
    directory.mkdir()
    calls = tmp_path / "calls"
    calls.touch()
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")

    def put(behaviour: str) -> Path:
        program = directory / "qemu-system-x86_64"
        program.write_text(_STAND_IN.format(python=sys.executable, calls=str(calls), behaviour=behaviour))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return calls

    return put


BOOTS = 'access(); say(b"onggi: init\\r\\n"); say(b"onggi: ready\\r\\n"); time.sleep(60)'


@pytest.fixture
def boots() -> str:
    """What a stand-in does that boots at once."""
    return BOOTS
