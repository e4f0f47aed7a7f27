"""What a program in a container can see and do, asked from the inside."""

import ctypes
import json
import os
import platform
import shutil
import signal
import stat
from pathlib import Path

import pytest

from real_engine.container.container import StartError
from real_engine.container.engine import Engine
from real_engine.container.spec import Mount
from real_engine.linux.cgroups import Hierarchy

pytestmark = pytest.mark.root


def test_it_is_process_1_among_its_own(run):
    assert (0, "1\n/proc/1\n") == run("echo $$; echo /proc/[0-9]*")  # the shell alone: it needs no program for this


def test_host_name_is_its_own(run):
    host = os.uname().nodename
    assert (0, "tester\ntester\n") == run("hostname; cat /etc/hostname", hostname="tester")
    assert host == os.uname().nodename


def test_no_mount_of_the_host_is_left(run, data_root):
    own = {"/", "/proc", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm", "/sys"}
    _, output = run("cat /proc/self/mounts")
    points = {line.split()[1] for line in output.splitlines()}
    strange = [point for point in points - own if not point.startswith(("/proc/", "/sys/", "/etc/"))]
    assert [] == strange
    assert own <= points


def test_its_mounts_do_not_show_on_the_host(run, data_root):
    def shown():  # others on this machine may mount things meanwhile
        return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(data_root) in line]

    assert (0, "") == run("true", tmpfs=("/run",))
    assert [] == shown()


def test_settings_of_the_machine_are_read_only(run):
    files = [path for path in ("/proc/sys/kernel/panic", "/proc/sysrq-trigger") if Path(path).exists()]
    status, output = run("".join(f"echo 1 > {path}; " for path in files) + "mkdir /sys/fs/cgroup/x")
    assert status != 0
    assert len(files) + 1 == output.lower().count("read-only file system")


def test_what_tells_about_the_machine_is_masked(run):
    masked = [path for path in ("/proc/kcore", "/proc/keys", "/proc/interrupts") if Path(path).exists()]
    _, output = run(f"cat {' '.join(masked)} | wc -c; ls -A /sys/firmware /proc/acpi /proc/scsi | grep -v :")
    assert "0" == output.split()[0]
    assert [] == [line for line in output.split("\n")[1:] if line and "No such file" not in line]


def test_a_node_of_any_device_can_be_made_and_only_few_be_opened(run):
    """As Docker has it: programs that unpack archives or fill root file systems make nodes that they never open."""
    made = "mknod /dev/disk b 254 0 && mknod /disk b 8 0 && mknod /kmsg c 1 11 && mknod /mine c 1 5 && "
    status, output = run(f"{made} head -c 3 /mine | wc -c; cat /dev/disk; cat /disk; cat /kmsg; echo x > /kmsg")
    assert (1, "3") == (status, output.splitlines()[0])
    assert 4 == output.count("Operation not permitted")


def test_a_node_on_a_mount_of_the_host_cannot_be_opened_either(run, tmp_path):
    """The host may have mounted it without `nodev`; what guards the opening is the cgroup, and no mount."""
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    for place in (outer / "nested", inner):
        place.mkdir(parents=True)
    os.mknod(inner / "from-outside", stat.S_IFCHR | 0o666, os.makedev(1, 11))
    mounts = (Mount("bind", "/outer", str(outer)), Mount("bind", "/outer/nested", str(inner)))
    script = "mknod /outer/nested/kmsg c 1 11 && for node in kmsg from-outside; do echo x > /outer/nested/$node; done"
    status, output = run(script, mounts=mounts)
    assert (True, 2) == (status != 0, output.count("Operation not permitted"))
    assert os.makedev(1, 11) == (inner / "kmsg").stat().st_rdev


def test_devices_that_programs_expect_work(run):
    script = (
        "echo gone > /dev/null && head -c 3 /dev/zero | wc -c && head -c 8 /dev/urandom | wc -c && echo x > /dev/full"
    )
    status, output = run(script)
    assert (1, ["3", "8"]) == (status, output.split()[:2])
    assert "No space left" in output
    assert (0, "ok\n") == run("echo ok > /dev/stdout; [ -c /dev/pts/ptmx ] && [ -p /dev/fd/1 ]")


def test_rights_are_dockers_and_no_more(run):
    _, output = run("cat /proc/self/status")
    fields = dict(line.split(":\t", 1) for line in output.splitlines() if ":\t" in line)
    expected = f"{0xA80425FB:016x}"
    assert (expected, expected, expected) == (fields["CapEff"], fields["CapBnd"], fields["CapPrm"])
    assert 0 == int(fields["CapInh"], 16) == int(fields["CapAmb"], 16)
    assert ("1", "2") == (fields["NoNewPrivs"], fields["Seccomp"])


def test_capabilities_can_be_added_and_dropped(run):
    script = "grep CapEff /proc/self/status"
    assert (0, "CapEff:\t0000000000000001\n") == run(
        script, drop_capabilities=("ALL",), add_capabilities=("cap_chown",)
    )


def test_an_ordinary_user_has_no_capability(run):
    _, output = run("id -u; id -g; echo $HOME; grep -E 'Cap(Eff|Prm)' /proc/self/status", user="nobody")
    assert ["65534", "65534", "/home", "CapPrm:", "0" * 16, "CapEff:", "0" * 16] == output.split()


def test_a_user_and_group_by_number(run):
    assert (0, "1234 5\n") == run('echo "$(id -u) $(id -g)"', user="1234:tty")


def test_an_unknown_user_is_refused(run, leftovers):
    with pytest.raises(StartError, match="unable to find user ghost: no matching entries in passwd file"):
        run("true", user="ghost")


def test_new_namespaces_are_refused_with_the_default_profile_only(run):
    script = "unshare -m true && echo made"
    status, output = run(script)
    assert (1, True) == (status, "Operation not permitted" in output)
    assert (0, "made\n") == run(script, seccomp="unconfined", add_capabilities=("SYS_ADMIN",))
    assert (0, "made\n") == run(script, add_capabilities=("SYS_ADMIN",))  # the profile allows it with this capability


def test_a_profile_of_ones_own(run, tmp_path):
    profile = tmp_path / "no-mkdir.json"
    rules = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    status, output = run("mkdir /new", seccomp=profile)
    assert (1, True) == (status, "Permission denied" in output)


def test_network_none_has_loopback_that_works(run):
    status, output = run("ip -o link | wc -l; ping -c 1 -W 2 127.0.0.1 > /dev/null && echo answered")
    assert (0, ["1", "answered"]) == (status, output.split())


def test_network_host_is_the_hosts(run):
    host = sorted(os.listdir("/sys/class/net"))
    status, output = run("ls /sys/class/net", network="host")
    assert (0, host) == (status, sorted(output.split()))


def test_a_read_only_root(run):
    status, output = run("touch /tmp/file && touch /file", read_only=True, tmpfs=("/tmp",))
    assert (1, "touch: /file: Read-only file system\n") == (status, output)


def test_what_it_writes_does_not_reach_the_image(run, image):
    assert (0, "") == run("echo changed > /etc/passwd; rm -r /home")
    assert (image.layers[0] / "etc/passwd").read_text().startswith("root:")
    assert (image.layers[0] / "home").is_dir()


def test_layers_cover_one_another(run, image, tmp_path):
    upper = tmp_path / "upper"
    (upper / "etc").mkdir(parents=True)
    (upper / "etc/motd").write_text("from above")
    assert (0, "from above") == run("cat /etc/motd", layers=(*image.layers, upper))


def test_environment_and_working_directory(run):
    status, output = run(
        "echo $PWD $NAME $HOME $HOSTNAME", environment={"NAME": "값"}, workdir="/new/place", hostname="h"
    )
    assert (0, "/new/place 값 /root h\n") == (status, output)


def test_nobody_else_may_write_where_the_working_directory_was_made(run):
    assert (0, "755\n755\n755\n") == run("stat -c %a /a /a/b /a/b/c", workdir="/a/b/c")


def test_no_shared_memory(run):
    assert (1, "") == run("[ -e /dev/shm ]", shm_bytes=0)


def test_no_descriptor_of_the_engine_is_left(run):
    held = [os.open("/", os.O_RDONLY | os.O_DIRECTORY) for _ in range(3)]
    for descriptor in held:
        os.set_inheritable(descriptor, True)
    try:
        # 3 is the directory that ls itself reads.
        assert (0, ["0", "1", "2", "3"]) == (lambda result: (result[0], result[1].split()))(
            run(("ls", "/proc/self/fd"))
        )
    finally:
        for descriptor in held:
            os.close(descriptor)


def test_signals_act_as_by_default(run):
    # 32 is the C library's own: its posix_spawn, and so make's, leaves it ignored in what it starts.
    action = (ctypes.c_uint64 * 4)(signal.SIG_IGN)
    assert 0 == ctypes.CDLL(None).syscall(13 if platform.machine() == "x86_64" else 134, 32, action, None, 8)
    _, output = run(("grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"))
    assert ["SigBlk:", "0" * 16, "SigIgn:", "0" * 16] == output.split()


def test_it_has_a_session_without_the_engines_terminal(run):
    _, output = run("cat /proc/self/stat")
    session, terminal = output.rsplit(")", 1)[1].split()[3:5]
    assert ("1", "0") == (session, terminal)


@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
def test_an_image_whose_directory_is_a_link_out_is_refused(run, image, tmp_path, name, leftovers):
    target = tmp_path / "host"
    target.mkdir()
    layer = tmp_path / "layer"
    shutil.copytree(image.layers[0], layer, symlinks=True)
    (layer / name).rmdir()
    (layer / name).symlink_to(target)
    with pytest.raises(StartError, match="symbolic links"):
        run("true", layers=(layer,))
    assert [] == list(target.iterdir())


@pytest.mark.parametrize("user", ["0", "nobody"])
def test_a_script_cannot_name_the_engines_interpreter_as_its_own(run, image, tmp_path, user, leftovers):
    layer = tmp_path / "layer"
    layer.mkdir()
    for name, first in (("trap", "#!/proc/self/exe"), ("twice", "#! /trap"), ("unreadable", "#!/proc/1/exe -c")):
        (layer / name).write_text(f"{first}\nprint('inside')\n")
        (layer / name).chmod(0o111 if name == "unreadable" else 0o755)
        with pytest.raises(StartError, match="magic link") as raised:
            run((f"/{name}",), layers=(*image.layers, layer), user=user)
        assert 126 == raised.value.status


def test_a_script_with_an_interpreter_of_the_image_runs(run, image, tmp_path):
    (tmp_path / "script").write_text("#!/bin/sh\necho $0 $1\n")
    (tmp_path / "script").chmod(0o755)
    assert (0, "/script one\n") == run(("/script", "one"), layers=(*image.layers, tmp_path))


def test_a_v2_cgroup_by_a_device_program(run, data_root):
    """The machine may be hybrid: then its v2 hierarchy has no controllers, but is one."""
    place = next((path for path in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")) if _is_v2(path)), None)
    assert place is not None, "this machine mounts no cgroup v2 hierarchy"
    v2 = Engine(data_root, (Hierarchy(2, frozenset(), place, place / "onggi"),))
    devices = "mknod /disk b 254 0 && mknod /kmsg c 1 11 && head -c 3 /dev/zero | wc -c; cat /disk; echo x > /kmsg"
    script = f"grep ^0: /proc/self/cgroup; {devices}; ls /sys/fs/cgroup/cgroup.procs"
    _, output = run(script, on=v2)
    refused = [line for line in output.splitlines() if "Operation not permitted" in line]
    assert 2 == len(refused)
    assert ["0::/", "3", "/sys/fs/cgroup/cgroup.procs"] == [line for line in output.splitlines() if line not in refused]
    assert [] == [path for path in (place / "onggi").iterdir() if path.is_dir()]


def test_without_a_device_filter_no_device_can_be_made(run, data_root):
    without = Engine(data_root, ())
    status, output = run("mknod /null c 1 3", on=without)
    assert (1, "mknod: /null: Operation not permitted\n") == (status, output)


def test_overlayfs_of_older_kernels(run, image, monkeypatch, tmp_path):
    """Before Linux 6.5 there is no lowerdir+, and the value of an option may have 255 bytes."""
    from real_engine.linux import mounts

    set_option = mounts.fsconfig_set

    def refuse(context: int, key: str, value: str | bytes | None = None) -> None:
        if key == "lowerdir+" or (value is not None and len(value) > 255):
            raise OSError(22, "Invalid argument")
        set_option(context, key, value)

    monkeypatch.setattr(mounts, "fsconfig_set", refuse)
    deep = tmp_path / ("x" * 200) / ("y" * 200)
    deep.mkdir(parents=True)
    (deep / "file").write_text("deep\n")
    assert (0, "deep\n") == run("cat /file", layers=(*image.layers, deep))


def test_mount_attributes_of_older_kernels(run, monkeypatch):
    """Before Linux 5.12 there is no mount_setattr: mount(2) has to do."""
    from real_engine.linux import mounts

    monkeypatch.setattr(mounts, "_setattr", lambda *_: False)
    _, output = run("mkdir /sys/fs/cgroup/x; echo 1 > /proc/sys/kernel/panic; mount | grep -c /proc/sys")
    assert ["1", 2] == [output.split()[-1], output.lower().count("read-only file system")]


def _is_v2(path: Path) -> bool:
    return (path / "cgroup.procs").exists() and (path / "cgroup.controllers").exists()
