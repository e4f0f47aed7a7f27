"""A Python whose executable nobody can write to, even if they get at it by /proc/PID/exe."""

import fcntl
import os
import shutil
import subprocess
import sys

import pytest

from real_engine.linux import interpreter

pytestmark = pytest.mark.root

_SAY = "import sys; from real_engine.linux import interpreter; print(sys.prefix, interpreter.is_read_only())"


def test_the_file_cannot_be_written_though_its_process_has_ended(tmp_path):
    """Somebody holds /proc/PID/exe, and opens the file behind it for writing once nobody executes it any more."""
    program = tmp_path / "program"
    shutil.copy(shutil.which("sleep"), program)
    assert os.O_RDWR == os.O_RDWR & _access_of_what_is_left_by(str(program), [])
    descriptor = interpreter.read_only_file(str(program))
    with pytest.raises(OSError, match="Read-only file system"):
        _access_of_what_is_left_by(f"/proc/self/fd/{descriptor}", [descriptor])
    os.close(descriptor)
    program.write_bytes(b"by its path it can be written")


def test_python_runs_as_usual():
    program = interpreter.read_only_interpreter()
    command = [sys.executable, "-c", _SAY]
    options = {"executable": f"/proc/self/fd/{program}", "pass_fds": [program]}
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, **options)
    assert [sys.prefix, "True"] == done.stdout.split()
    os.close(program)


def test_it_leaves_no_mount():
    before = len(os.listdir("/proc/self/fd"))
    program = interpreter.read_only_interpreter()
    assert os.path.samestat(os.stat(sys.executable), os.fstat(program))
    assert not os.get_inheritable(program)
    os.close(program)
    assert before == len(os.listdir("/proc/self/fd"))


def _access_of_what_is_left_by(executable: str, descriptors: list[int]) -> int:
    """Run a program, hold its /proc/PID/exe, end it, and open that to write; returns the flags of the open file."""
    with subprocess.Popen(["sleep", "60"], executable=executable, pass_fds=descriptors) as process:
        held = os.open(f"/proc/{process.pid}/exe", os.O_PATH)
        process.kill()
    try:
        file = os.open(f"/proc/self/fd/{held}", os.O_RDWR)
        try:
            return fcntl.fcntl(file, fcntl.F_GETFL)
        finally:
            os.close(file)
    finally:
        os.close(held)
