"""The host's memory, read from what the kernel says."""

import sys

import pytest

from real_engine.measure.host_memory import HostMemory, live_slab_bytes, meminfo_bytes


def test_meminfo_is_read_in_bytes():
    assert {"MemAvailable": 2048, "HugePages_Total": 3} == meminfo_bytes("MemAvailable:  2 kB\nHugePages_Total:   3\n")


def test_slab_memory_is_what_is_alive_and_not_what_is_kept():
    text = (
        "slabinfo - version: 2.1\n"
        "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables …\n"
        "dentry                10    42    192   21    1 : tunables    0    0    0 : slabdata 2 2 0\n"
        "inode_cache            3    30    600   13    2 : tunables    0    0    0 : slabdata 3 3 0\n"
    )

    assert live_slab_bytes(text) == 10 * 192 + 3 * 600


@pytest.mark.root
def test_this_host_has_memory_and_its_kernel_some_of_it():
    reading = HostMemory.settled()

    assert 0 < reading.kernel_bytes < reading.available_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="the engine measures on Linux only")
def test_memory_that_a_process_takes_is_no_longer_available():
    import mmap

    before = HostMemory.settled()
    with mmap.mmap(-1, 256 << 20) as taken:
        for offset in range(0, len(taken), mmap.PAGESIZE):
            taken[offset] = 1
        after = HostMemory.settled()

    assert before.available_bytes - after.available_bytes > 100 << 20
