"""The engine without root, and within a chroot that is no mount point: each in a process of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

# Imports are done before the change, since an ordinary user (or a chroot) may have no way to the interpreter's files.
_PREAMBLE = """
import encodings.idna, os, sys, traceback
from pathlib import Path
from real_engine.container.engine import Engine
from real_engine.container.spec import ContainerSpec, Limits
from real_engine.errors import EngineError
from real_engine.images.busybox import builtin_image
from real_engine.container import engine as engine_module
from real_engine.linux import capabilities, mounts, processes
root = Path(sys.argv[1])
# Compiled here, and kept, since an ordinary user may not be able to read the checkout, and a jail has none.
kept = ContainerSpec((root,), ("true",)).capability_mask
engine_module._compile("default", frozenset(capabilities.names(kept)))
"""

_ORDINARY_USER = (
    _PREAMBLE
    + """
os.setgroups([]); os.setresgid(12345, 12345, 12345); os.setresuid(12345, 12345, 12345)
processes.prctl(processes.PR_SET_DUMPABLE, 1)  # a login would have left it so
engine = Engine(root)
image = builtin_image(root)
def run(script, **options):
    with engine.start(ContainerSpec(image.layers, ("sh", "-c", script), **options)) as container:
        print("status", container.wait(), flush=True)
"""
)

_CHROOT = (
    _PREAMBLE
    + """
jail = Path(sys.argv[2])
processes.unshare(processes.CLONE_NEWNS)
mounts.make_private("/")
for name in ("proc", "sys", "dev"):
    (jail / name).mkdir()
    mounts.mount(f"/{name}", str(jail / name), None, mounts.MS_BIND | mounts.MS_REC)
os.chroot(jail)
os.chdir("/")
engine = Engine(Path("/data"))
image = builtin_image(Path("/data"))
script = "pwd; ls -d /proc/1 /dev/null; ls / | grep -c data; cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max"
with engine.start(ContainerSpec(image.layers, ("sh", "-c", script), limits=Limits(pids=7))) as container:
    container.wait()
print(len(os.listdir("/data/runs")))
"""
)


def _in_a_chroot() -> bool:
    """Whether our root is a plain directory: then no mount has its place there (proc(5), mountinfo)."""
    mountinfo = Path("/proc/self/mountinfo")
    return mountinfo.exists() and "/" not in [line.split()[4] for line in mountinfo.read_text().splitlines()]


not_in_a_chroot = pytest.mark.skipif(
    _in_a_chroot(), reason="these tests run in a chroot, where Linux allows no user namespace (user_namespaces(7))"
)


@pytest.fixture
def own_root(tmp_path: Path) -> Path:
    """A data root that belongs to an ordinary user, and can be reached by one."""
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/") and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    root = tmp_path / "root"
    root.mkdir()
    os.chown(root, 12345, 12345)
    return root


def _python(script: str, *arguments: Path) -> list[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "" == result.stderr
    return result.stdout.splitlines()


@not_in_a_chroot
def test_root_in_the_container_is_an_ordinary_user_outside(own_root):
    script = (
        _ORDINARY_USER + "run('id -u; cat /proc/self/uid_map; cat /proc/self/setgroups; touch /file; ls -ln /file')"
    )
    user, uid_map, setgroups, file, status = _python(script, own_root)
    assert ("0", ["0", "12345", "1"], "deny", "status 0") == (user, uid_map.split(), setgroups, status)
    assert ["0", "0"] == file.split()[2:4]


@not_in_a_chroot
@pytest.mark.parametrize("network", ["none", "host"])
def test_isolation_without_root(own_root, network):
    inside = (
        'echo $$; grep -E \\"Cap(Eff|Bnd)|Seccomp:|NoNew\\" /proc/self/status; echo x > /dev/null && echo written;'
        "mknod /disk b 8 0 2>&1; mkdir /sys/x; false"
    )
    script = _ORDINARY_USER + f'run("{inside}", network="{network}")'
    command = [sys.executable, "-c", script, str(own_root)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = result.stdout.split("\n")
    assert "1" == lines[0]
    rights = dict(line.split(":\t") for line in lines if ":\t" in line)
    assert {"CapEff": f"{0xA80425FB:016x}", "CapBnd": f"{0xA80425FB:016x}", "NoNewPrivs": "1", "Seccomp": "2"} == rights
    assert "written" in lines
    assert "mknod: /disk: Operation not permitted" in lines
    assert "Read-only file system" in result.stderr
    assert "status 1" in lines


@not_in_a_chroot
def test_what_an_ordinary_user_cannot_have_is_said(own_root):
    script = (
        _ORDINARY_USER
        + """
for options in ({"limits": Limits(pids=5)}, {"user": "nobody"}):
    try:
        run("true", **options)
    except EngineError as error:
        print(error)
print(os.listdir(root / "runs"))
"""
    )
    limit, user, left = _python(script, own_root)
    assert limit.startswith("cannot limit pids here: ")
    assert "without root the container has only user 0" in user
    assert "[]" == left


@not_in_a_chroot
def test_directories_that_nobody_may_enter_are_removed_too(own_root):
    script = "run('mkdir -p /a/b/c && touch /a/b/c/d && ln -s /etc /a/b/link && chmod 0 /a/b/c /a/b /a')"
    assert ["status 0", "[]"] == _python(_ORDINARY_USER + script + "\nprint(os.listdir(root / 'runs'))", own_root)


@pytest.mark.skipif(_in_a_chroot(), reason="these tests run in a chroot, so all the others show that it works")
def test_in_a_chroot_that_is_no_mount_point(tmp_path):
    jail, root = tmp_path / "jail", tmp_path / "root"
    (jail / "usr/bin").mkdir(parents=True)
    busybox = next(path for path in ("/bin/busybox", "/usr/bin/busybox") if os.path.exists(path))
    shutil.copy(busybox, jail / "usr/bin/busybox")
    command = [sys.executable, "-c", _CHROOT, str(root), str(jail)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ["/", "/dev/null", "/proc/1", "0", "7", "0"] == result.stdout.split(), result.stderr


_ROOT_OF_A_USER_NAMESPACE = (
    _PREAMBLE
    + """
from real_engine.container.spec import Device, ExecSpec
ready, go = os.pipe(), os.pipe()
child = os.fork()
if child:
    os.read(ready[0], 1)
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{child}/{name}").write_text("0 100000 65536")
    os.write(go[1], b"x")
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
processes.unshare(processes.CLONE_NEWUSER | processes.CLONE_NEWNS | processes.CLONE_NEWNET)
os.write(ready[1], b"x")
os.read(go[0], 1)
os.setgroups([]); os.setresgid(0, 0, 0); os.setresuid(0, 0, 0)
engine = Engine(root)
image = builtin_image(root)
def run(script, **options):
    with engine.start(ContainerSpec(image.layers, ("sh", "-c", script), **options)) as container:
        print("status", container.wait(), flush=True)
run("id -u; echo gone > /dev/null && echo works; mknod /disk b 8 0; grep CapEff /proc/self/status")
run("id -u; ls /dev/mine; touch /tmp/x; ls -ln /tmp/x", user="nobody", devices=(Device("/dev/full", "/dev/mine"),))
run("mkdir /sys/x; ls -d /sys/class/net/lo", network="host", no_new_privileges=False)
spec = ContainerSpec(image.layers, ("sleep", "60"), upper=root / "upper", work=root / "work", no_new_privileges=False)
with engine.create(spec, "one") as container:
    container.begin((0, 1, 2)); container.complete()
    program = ExecSpec(("sh", "-c", "tr '\\\\0' ' ' < /proc/1/cmdline; id -u"))
    with engine.enter(container.pidfd, "one", spec, program) as entry:
        entry.begin((0, 1, 2)); entry.complete()
        print("status", entry.wait())
"""
)


@not_in_a_chroot
def test_the_root_of_a_user_namespace(tmp_path, own_root):
    """As a rootless daemon is, with subordinate ids: it can make no device, and so lends those of the host."""
    os.chown(own_root, 100000, 100000)
    command = [sys.executable, "-c", _ROOT_OF_A_USER_NAMESPACE, str(own_root)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = result.stdout.splitlines()
    assert ["0", "works", f"CapEff:\t{0xA80425FB:016x}", "status 0"] == lines[:4], result.stderr
    assert ["65534", "/dev/mine"] == lines[4:6]
    assert ["65534", "65534"] == lines[6].split()[2:4]
    assert ["status 0", "/sys/class/net/lo", "status 0", "sleep 60 0", "status 0"] == lines[7:]
    assert ["Operation not permitted", "Read-only file system"] == [
        line.rsplit(": ", 1)[1] for line in result.stderr.splitlines()
    ]
