"""Terminals are checked to be terminals, and have the size that they are given."""

import os

import pytest

from real_engine.linux import terminals


@pytest.fixture
def master():
    descriptor = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
    yield descriptor
    os.close(descriptor)


def test_the_slave_of_a_master(master):
    slave = terminals.open_slave(master, (7, 9))
    assert (7, 9) == terminals.size_of(slave)
    assert os.isatty(slave)
    assert f"/dev/pts/{terminals.number_of(master)}" == os.ttyname(slave)
    os.write(slave, b"out\n")
    assert b"out\r\n" == os.read(master, 10)
    terminals.set_size(master, 1, 2)
    assert (1, 2) == terminals.size_of(slave)
    os.close(slave)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/tty0", "/etc/passwd"])
def test_what_is_no_master(path):
    if not os.path.exists(path):
        pytest.skip(f"there is no {path}")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOCTTY)
    try:
        with pytest.raises(OSError, match="not a terminal"):
            terminals.open_slave(descriptor)
    finally:
        os.close(descriptor)
