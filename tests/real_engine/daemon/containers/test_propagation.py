"""Which mounts pass on what is mounted on them."""

from pathlib import Path

import pytest

from real_engine.daemon.containers.propagation import check_propagation
from real_engine.errors import EngineError
from real_engine.volumes.mounts import MountPoint

MOUNTINFO = """\
20 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
21 20 0:30 / /nowhere/shared rw shared:7 - tmpfs none rw
22 20 0:31 / /nowhere/slave rw master:7 - tmpfs none rw
23 21 0:32 / /nowhere/shared/private rw - tmpfs none rw
24 20 0:33 / /nowhere/a\\040blank rw shared:8 - tmpfs none rw
25 22 0:34 / /nowhere/slave rw - tmpfs none rw
26 25 0:35 / /nowhere/slave/both rw shared:9 master:7 - tmpfs none rw
"""


@pytest.mark.parametrize(
    ("source", "propagation", "refused"),
    [
        ("/nowhere/shared", "rshared", ""),
        ("/nowhere/shared/below", "shared", ""),
        ("/nowhere/shared/below", "rslave", ""),
        ("/nowhere/a blank", "rshared", ""),
        ("/nowhere/slave/both", "rshared", ""),
        ("/nowhere/sharedX", "rshared", "on / but it is not a shared mount"),
        ("/nowhere/shared/private/x", "rshared", "on /nowhere/shared/private but it is not a shared mount"),
        ("/nowhere/slave/x", "slave", "on /nowhere/slave but it is not a shared or slave mount"),  # the upper of two
        ("/nowhere", "rprivate", ""),
        ("/nowhere", "", ""),
    ],
)
def test_the_mount_that_a_source_is_on(tmp_path: Path, source: str, propagation: str, refused: str) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTINFO)
    points = [MountPoint("bind", "/x", source, propagation=propagation), MountPoint("volume", "/y")]
    if not refused:
        check_propagation(points, str(tmp_path / "mountinfo"))
        return
    with pytest.raises(EngineError) as raised:
        check_propagation(points, str(tmp_path / "mountinfo"))
    assert f"path {source} is mounted {refused}" == str(raised.value)


def test_a_slave_of_the_hosts_is_enough_for_a_slave(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text("\n".join(MOUNTINFO.splitlines()[:3]))
    point = MountPoint("bind", "/x", "/nowhere/slave/x", propagation="rslave")
    check_propagation([point], str(tmp_path / "mountinfo"))
