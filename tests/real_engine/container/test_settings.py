"""What a container may be given beside mounts: devices, namespaces, limits of processes, settings, a terminal."""

import os
import select
import time
from pathlib import Path

import pytest

from real_engine.container.container import StartError
from real_engine.container.spec import ContainerSpec, Device, Ulimit
from real_engine.errors import InvalidParameter
from real_engine.linux import terminals
from real_engine.linux.network_namespaces import create_network_namespace

pytestmark = pytest.mark.root

RIGHTS = "grep -E 'Cap(Eff|Bnd)|NoNew|Seccomp:' /proc/self/status"


def test_a_device_at_another_place_and_with_fewer_rights(run):
    devices = (Device("/dev/zero", "/dev/block/one", "rw"), Device("/dev/kmsg", "/dev/kmsg", "w"))
    _, output = run("head -c 3 /dev/block/one | wc -c; head -c 1 /dev/kmsg", devices=devices)
    assert ("3", True) == (output.split()[0], "Operation not permitted" in output)


def test_all_devices_of_a_directory(run):
    name = "/dev/net" if Path("/dev/net/tun").exists() else "/dev/mapper"
    expected = sorted(entry for entry in os.listdir(name) if not (Path(name) / entry).is_symlink())
    _, output = run("ls /dev/mine", devices=(Device(name, "/dev/mine"),))
    assert expected == output.split()


@pytest.mark.parametrize(
    ("path", "why"), [("/no/such", "no such file or directory"), ("/etc/passwd", "not a device node")]
)
def test_what_is_no_device(run, path, why, leftovers):
    with pytest.raises(InvalidParameter, match=f'adding custom device "{path}": {why}'):
        run("true", devices=(Device(path),))


def test_a_rule_lets_a_device_be_opened(run):
    """(Made it can be without one.) Writing to the kernel's messages takes no right but the device cgroup's."""
    script = "mknod /mine c 1 11 && ls /mine; echo x > /mine"
    assert (0, "/mine\n") == run(script, device_cgroup_rules=("c 1:* rwm",))
    status, output = run(script, device_cgroup_rules=("c 1:11 r",))
    assert (1, True) == (status, "Operation not permitted" in output)
    assert 1 == run(script)[0]


def test_a_device_is_opened_as_far_as_was_asked_for(run):
    script = "echo x > /dev/mine && echo written; head -c 0 /dev/mine && echo read"
    only_read = run(script, devices=(Device("/dev/kmsg", "/dev/mine", "r"),), add_capabilities=("SYSLOG",))[1]
    assert ["read"] == [line for line in only_read.splitlines() if "not permitted" not in line]
    assert "written" in run(script, devices=(Device("/dev/kmsg", "/dev/mine", "w"),))[1].splitlines()


def test_privileged_is_unconfined(run):
    script = f"{RIGHTS}; ls /dev; grep -cE 'ro,.*(proc|sysfs)' /proc/mounts; ls /sys/firmware | wc -l"
    _, output = run(script, privileged=True, no_new_privileges=False)
    held = Path("/proc/self/status").read_text().split("CapBnd:\t")[1][:16]
    assert [f"CapEff:\t{held}", f"CapBnd:\t{held}", "NoNewPrivs:\t0", "Seccomp:\t0"] == output.splitlines()[:4]
    assert {"kmsg", "full"} <= set(output.split())
    assert "0" == output.splitlines()[-2]


def test_who_can_mount_is_in_a_cgroup_of_its_own_in_every_hierarchy(run):
    """Else its cgroup namespace would begin at the host's top, which a mount would show (CVE-2022-0492 needs that)."""
    _, output = run("grep -v :/$ /proc/1/cgroup; grep -c . /proc/1/cgroup", add_capabilities=("SYS_ADMIN",))
    assert [str(len(Path("/proc/self/cgroup").read_text().splitlines()))] == output.split()


def test_new_privileges_may_be_had_where_that_is_asked_for(run):
    assert ["CapEff:\t00000000a80425fb", "CapBnd:\t00000000a80425fb", "NoNewPrivs:\t0", "Seccomp:\t2"] == run(
        RIGHTS, no_new_privileges=False
    )[1].splitlines()
    lines = run(RIGHTS, no_new_privileges=False, user="nobody")[1].splitlines()
    assert [f"CapEff:\t{0:016x}", "Seccomp:\t2"] == [lines[0], lines[3]]


def test_more_groups(run):
    assert (0, "5 77\n") == run("id -G | cut -d' ' -f2-", user="0:0", group_add=("tty", "77"))
    with pytest.raises(StartError, match="unable to find group ghosts: no matching entries in group file") as raised:
        run("true", group_add=("ghosts",))
    assert (125, False) == (raised.value.status, raised.value.from_runtime)


def test_limits_of_a_process(run):
    script = "ulimit -n; ulimit -Hn; ulimit -c"
    assert (0, "100\n200\n0\n") == run(script, ulimits=(Ulimit("nofile", 100, 200),))
    assert (0, "5\n") == run("ulimit -c", ulimits=(Ulimit("core", 5 * 512, 5 * 512),))


def test_a_limit_that_the_engine_may_not_raise_is_named(run, leftovers):
    if int(Path("/proc/self/status").read_text().split("CapEff:\t")[1][:16], 16) >> 24 & 1:
        pytest.skip("with CAP_SYS_RESOURCE every limit can be raised")
    with pytest.raises(StartError, match=r"error setting rlimit type 7 \(nofile\).*needs CAP_SYS_RESOURCE") as raised:
        run("true", ulimits=(Ulimit("nofile", 1 << 30, 1 << 30),))
    assert raised.value.reason.startswith("error setting rlimits for ready process: ")


def test_settings_of_its_own_namespaces(run):
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    sysctls = {"net.ipv4.ip_default_ttl": "77", "kernel.shmmax": "12345"}
    script = "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shmmax; echo 1 > /proc/sys/kernel/shmmax"
    _, output = run(script, sysctls=sysctls)
    assert (["77", "12345"], True) == (output.split()[:2], "Read-only file system" in output)
    assert before == Path("/proc/sys/net/ipv4/ip_forward").read_text()
    with pytest.raises(StartError, match="no_such_thing"):
        run("true", sysctls={"net.no_such_thing": "1"})


def test_how_soon_it_is_killed_and_its_names(run):
    script = "cat /proc/self/oom_score_adj; hostname; cat /proc/sys/kernel/domainname; df -k /dev/shm | tail -1"
    options = {"oom_score_adj": 321, "hostname": "box", "domainname": "example", "shm_bytes": 1 << 20}
    output = run(script, **options)[1].split()
    assert ["321", "box", "example", "1024"] == [*output[:3], output[4]]


def test_paths_that_are_hidden_and_protected_are_the_owners_to_choose(run):
    script = "cat /etc/passwd; touch /home/x; echo 12345 > /proc/sys/kernel/shmmax && echo written"
    _, output = run(script, masked_paths=("/etc/passwd", "/not/there"), readonly_paths=("/home",))
    assert (True, True, False) == ("Read-only file system" in output, "written" in output, "root:" in output)


def test_namespaces_of_the_host(run):
    kinds = ("pid", "ipc", "uts", "net", "cgroup", "mnt")
    script = f"for kind in {' '.join(kinds)}; do stat -c %N /proc/self/ns/$kind; done; ls -d /proc/{os.getpid()}"
    *lines, process = run(script, pid="host", ipc="host", uts="host", network="host", cgroup="host")[1].splitlines()
    *shared, mounts = [line.replace("'", "").split(" -> ")[1] for line in lines]
    own = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]
    assert (own[:-1], f"/proc/{os.getpid()}") == (shared, process)
    assert own[-1] != mounts


def test_namespaces_of_another_container(engine, image, run, leftovers):
    script = "echo shared > /dev/shm/file; hostname; exec sleep 60"
    receive, send = os.pipe()
    with engine.start(ContainerSpec(image.layers, ("sh", "-c", script), hostname="other"), stdout=send) as other:
        assert b"other\n" == os.read(receive, 100)
        paths = {kind: f"/proc/{other.pid}/ns/{kind}" for kind in ("pid", "ipc", "uts")}
        inside = "hostname; cat /dev/shm/file; tr '\\0' ' ' < /proc/1/cmdline; set -- /proc/[0-9]*; echo $#"
        _, output = run(inside, network=f"/proc/{other.pid}/ns/net", **paths)
        assert ["other", "shared", "sleep", "60", "2"] == output.split()
        assert "sleep" in Path(f"/proc/{other.pid}/cmdline").read_text()  # the end of the second didn't end the first
    os.close(receive)
    os.close(send)


def test_all_ends_though_the_processes_are_the_hosts(engine, image, leftovers):
    """Where it isn't the first of its namespace, the kernel doesn't end the others with it."""
    with engine.start(
        ContainerSpec(image.layers, ("sh", "-c", "sleep 60 & sleep 60 & exit 0"), pid="host")
    ) as container:
        assert 0 == container.wait(timeout_seconds=20)
        group = Path(engine.group_paths(container.id)["pids"])
        left = [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
        assert 2 == len(left)
    assert [] == [pid for pid in left if Path(f"/proc/{pid}/exe").exists() and os.path.exists(f"/proc/{pid}/root/bin")]


def test_a_prepared_network(engine, image, leftovers):
    namespace = create_network_namespace()
    receive, send = os.pipe()
    try:
        container = engine.create(ContainerSpec(image.layers, ("stat", "-L", "-c", "%i", "/proc/self/ns/net")))
        with container:
            container.begin((0, send, 2), network_namespace_fd=namespace)
            container.complete()
            assert 0 == container.wait(timeout_seconds=20)
            assert os.fstat(namespace).st_ino == int(os.read(receive, 100))
    finally:
        for descriptor in (namespace, receive, send):
            os.close(descriptor)


def test_a_terminal(engine, image, leftovers):
    script = "tty; stty size; [ -c /dev/console ] && [ -t 1 ] && echo yes; read line; echo got $line; stty size"
    with engine.create(ContainerSpec(image.layers, ("sh", "-c", script), tty=True, user="nobody")) as container:
        container.begin(terminal_size=(24, 80))
        assert [container.report_fd] == select.select([container.report_fd], [], [], 10)[0]
        container.complete()
        assert not os.get_inheritable(container.terminal)
        assert "/dev/pts/0\r\n24 80\r\nyes\r\n" == _read_until(container.terminal, "yes\r\n")
        terminals.set_size(container.terminal, 11, 22)
        assert (11, 22) == terminals.size_of(container.terminal)
        os.write(container.terminal, b"hello\n")
        assert "got hello\r\n11 22\r\n" == _read_until(container.terminal, "22\r\n").replace("hello\r\n", "", 1)
        assert 0 == container.wait(timeout_seconds=20)
        os.close(container.terminal)


def test_control_c_reaches_the_program_of_a_terminal(engine, image, leftovers):
    with engine.create(
        ContainerSpec(image.layers, ("sh", "-c", "trap 'exit 9' INT; echo up; sleep 60"), tty=True)
    ) as one:
        one.begin()
        one.complete()
        _read_until(one.terminal, "up\r\n")
        time.sleep(0.05)
        os.write(one.terminal, b"\x03")
        assert 9 == one.wait(timeout_seconds=20)
        os.close(one.terminal)


def test_a_terminal_is_not_left_open_by_a_start_that_failed(engine, image, leftovers):
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(StartError, match="not found"):
        engine.start(ContainerSpec(image.layers, ("nosuch",), tty=True))
    assert descriptors == os.listdir("/proc/self/fd")


def test_two_starts_overlap(engine, image, leftovers):
    containers = [engine.create(ContainerSpec(image.layers, ("sh", "-c", f"exit {status}"))) for status in range(5)]
    for container in containers:
        container.begin((0, 1, 2))
    for container in reversed(containers):
        container.complete()
    assert [0, 1, 2, 3, 4] == [container.wait(timeout_seconds=20) for container in containers]
    for container in containers:
        container.remove()


def test_one_that_is_removed_before_its_start_is_complete(engine, image, leftovers):
    container = engine.create(ContainerSpec(image.layers, ("sleep", "60")))
    container.begin((0, 1, 2))
    container.remove()
    assert 137 == container.status


def test_without_streams_there_must_be_a_terminal(engine, image, leftovers):
    with pytest.raises(ValueError, match="needs descriptors"):
        engine.create(ContainerSpec(image.layers, ("true",))).begin()


def _read_until(terminal: int, end: str) -> str:
    text = ""
    while not text.endswith(end):
        assert select.select([terminal], [], [], 10)[0], f"only {text!r} has come"
        text += os.read(terminal, 4096).decode()
    return text
