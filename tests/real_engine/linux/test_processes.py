"""clone3 and openat2 by the kernel itself."""

import os
import sys
import threading

import pytest

from real_engine.linux import processes
from real_engine.linux.processes import RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs the Linux kernel")


def test_a_clone_returns_in_both(tmp_path):
    receive, send = os.pipe()
    pid, pidfd = processes.clone3(0)
    if pid == 0:
        os.write(send, b"child")
        os._exit(7)
    assert b"child" == os.read(receive, 10)
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    assert (pid, 7) == (result.si_pid, result.si_status)
    with pytest.raises(ProcessLookupError):
        processes.pidfd_send_signal(pidfd, 0)
    for descriptor in (pidfd, receive, send):
        os.close(descriptor)


def test_a_clone_of_a_process_with_busy_threads_runs_python(tmp_path):
    """The child has one thread, and must not wait for the interpreter lock of those that it hasn't."""
    stop = threading.Event()
    threads = [threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            pid, pidfd = processes.clone3(0)
            if pid == 0:
                os._exit(len([number for number in range(200_000) if number % 2]) % 7)
            assert 100_000 % 7 == os.waitid(os.P_PIDFD, pidfd, os.WEXITED).si_status
            os.close(pidfd)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_openat2_stays_beneath_the_root(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("ours")
    (tmp_path / "absolute").symlink_to("/etc/passwd")
    (tmp_path / "upwards").symlink_to("../../../../../etc/passwd")
    root = os.open(tmp_path, os.O_PATH)
    for name in ("absolute", "upwards"):
        descriptor = processes.openat2(root, name, os.O_RDONLY, RESOLVE_IN_ROOT)
        assert b"ours" == os.read(descriptor, 100)
        os.close(descriptor)
        for rules, error in ((RESOLVE_BENEATH, "cross-device"), (RESOLVE_NO_SYMLINKS, "symbolic links")):
            with pytest.raises(OSError, match=f"(?i){error}.*{name}"):
                processes.openat2(root, name, os.O_RDONLY, rules)
    os.close(root)


def test_openat2_follows_no_magic_link():
    with pytest.raises(OSError, match="symbolic links"):
        processes.openat2(-100, "/proc/self/exe", os.O_PATH, RESOLVE_NO_MAGICLINKS)


def test_errors_name_the_path():
    with pytest.raises(FileNotFoundError) as raised:
        processes.openat2(-100, "/no/such/file", os.O_RDONLY, 0)
    assert "/no/such/file" == raised.value.filename


def test_a_function_that_the_system_lacks_fails_when_it_is_called():
    from real_engine.linux.libc import function

    with pytest.raises(OSError, match="this system has no such_a_call"):
        function("such_a_call")()
