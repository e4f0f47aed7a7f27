"""Daemons to test with: ours and Docker's own, each in a network namespace of its own so that they cannot meet."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from classroom.bench.engine.daemons import RunningDaemon, dockerd, onggi, tar_of
from real_engine.errors import EngineError
from real_engine.images.busybox import builtin_image

ALONE = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
"""What runs a command in a new network namespace whose loopback is up."""


@contextmanager
def our_daemon(directory: Path, *options: str, before: Sequence[str] = ALONE) -> Iterator[RunningDaemon]:
    """Ours; it and its containers are ended with the block."""
    with onggi(directory, *options, before=before) as daemon:
        yield daemon


@contextmanager
def dockers_daemon(directory: Path) -> Iterator[RunningDaemon]:
    """Docker's own; skips where it is not installed."""
    try:
        with dockerd(directory, before=ALONE) as daemon:
            yield daemon
    except EngineError as error:
        if "there is no dockerd" not in str(error):
            raise
        pytest.skip(str(error))


def busybox_tar(directory: Path) -> bytes:
    """The built-in image's file system as a tar, for `docker import`."""
    return tar_of(builtin_image(directory).layers[0])
