"""More programs in a container that runs, and what a hostile one in there can get at meanwhile."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from real_engine.container.container import Container, Observer, StartError
from real_engine.container.entry import Entry
from real_engine.container.spec import ContainerSpec, ExecSpec, Limits, Mount, Ulimit
from real_engine.errors import EngineError
from real_engine.linux import terminals

pytestmark = pytest.mark.root

RIGHTS = "grep -E 'Cap(Prm|Bnd)|NoNew|Seccomp:' /proc/self/status"
ID = "entry-tests"


@pytest.fixture
def container(engine, image, tmp_path, leftovers):
    """Starts a container that sleeps; returns (container, its specification)."""
    with contextlib.ExitStack() as stack:

        def start(script: str = "exec sleep 600", **options: object) -> tuple[Container, ContainerSpec]:
            spec = ContainerSpec(
                options.pop("layers", image.layers),
                ("sh", "-c", script),
                upper=tmp_path / "upper",
                work=tmp_path / "work",
                **{"hostname": "home", **options},
            )
            started = stack.enter_context(engine.create(spec, ID))
            started.begin((0, 1, 2))
            started.complete()
            return started, spec

        yield start


@pytest.fixture
def enter(engine):
    """Runs a command in a container and returns its status with all that it wrote."""

    def run(pair, command, **options):
        argv = ("sh", "-c", command) if isinstance(command, str) else command
        receive, send = os.pipe()
        try:
            with engine.enter(pair[0].pidfd, pair[0].id, pair[1], ExecSpec(argv, **options)) as entry:
                entry.begin((0, send, send))
                entry.complete()
                os.close(send)
                send = -1
                with os.fdopen(receive, "rb") as pipe:
                    receive = -1
                    output = pipe.read()
                return entry.wait(timeout_seconds=20), output.decode()
        finally:
            for descriptor in (receive, send):
                if descriptor >= 0:
                    os.close(descriptor)

    return run


def test_it_is_in_the_same_namespaces_and_cgroups(engine, container, enter):
    pair = container()
    kinds = ("pid", "mnt", "net", "ipc", "uts", "cgroup")
    script = f"hostname; for kind in {' '.join(kinds)}; do stat -L -c %i /proc/self/ns/$kind; done"
    status, output = enter(pair, script)
    name, *inodes = output.split()
    expected = [os.stat(f"/proc/{pair[0].pid}/ns/{kind}").st_ino for kind in kinds]
    assert (0, "home", expected) == (status, name, [int(inode) for inode in inodes])
    with engine.enter(pair[0].pidfd, ID, pair[1], ExecSpec(("sleep", "60"))) as entry:
        _start(entry)
        for path in engine.group_paths(ID).values():
            assert entry.pid in [int(pid) for pid in (Path(path) / "cgroup.procs").read_text().split()]
        entry.kill(signal.SIGTERM)
        assert 143 == entry.wait(timeout_seconds=20)


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_its_rights_are_the_containers(container, enter, no_new_privileges):
    pair = container(no_new_privileges=no_new_privileges, drop_capabilities=("CHOWN",))
    mask = f"{pair[1].capability_mask:016x}"
    expected = {"CapPrm": mask, "CapBnd": mask, "NoNewPrivs": str(int(no_new_privileges)), "Seccomp": "2"}
    assert expected == _fields(enter(pair, RIGHTS)[1])
    assert expected | {"CapPrm": "0" * 16} == _fields(enter(pair, RIGHTS, user="nobody")[1])
    everything = enter(pair, RIGHTS, privileged=True)[1]
    assert Path("/proc/self/status").read_text().split("CapBnd:\t")[1][:16] == _fields(everything)["CapPrm"]


def test_user_directory_environment_and_limits(container, enter):
    pair = container(ulimits=(Ulimit("nofile", 99, 99),), user="nobody", oom_score_adj=77)
    script = "id -u; id -G; pwd; echo $A $HOME; ulimit -n; cat /proc/self/oom_score_adj"
    assert (0, "65534\n65534\n/\n1 /home\n99\n77\n") == enter(pair, script, environment={"A": "1"})
    options = {"user": "root", "group_add": ("tty",), "workdir": "/tmp"}
    assert (0, "0\n0 5\n/tmp\n/root\n99\n77\n") == enter(pair, script, **options)


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        ({"argv": ("nosuch",)}, 127, 'exec: "nosuch": executable file not found in $PATH'),
        ({"argv": ("/no/such",)}, 127, 'exec: "/no/such": stat /no/such: no such file or directory'),
        ({"argv": ("/etc/passwd",)}, 126, 'exec: "/etc/passwd": permission denied'),
        ({"workdir": "/no"}, 126, 'chdir to cwd ("/no") set in config.json failed: no such file or directory'),
        ({"user": "ghost"}, 125, "unable to find user ghost: no matching entries in passwd file"),
    ],
)
def test_what_cannot_be_run(engine, container, new_children, options, status, reason):
    running, spec = container()
    children, descriptors = new_children(), os.listdir("/proc/self/fd")
    entry = engine.enter(running.pidfd, ID, spec, ExecSpec(**{"argv": ("true",), **options}))
    with pytest.raises(StartError) as raised:
        _start(entry)
    assert (status, reason) == (raised.value.status, raised.value.reason)
    assert (children, descriptors) == (new_children(), os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("added", [(), ("SYS_PTRACE",)])
def test_a_failure_at_any_step_leaves_nothing(engine, container, new_children, added):
    running, spec = container(no_new_privileges=False, add_capabilities=added)
    program = ExecSpec(("true",), tty=True)
    plan = engine.enter(running.pidfd, ID, spec, program)
    steps = [operation for phase in plan._plan for operation in phase.operations]
    children, descriptors = new_children(), os.listdir("/proc/self/fd")
    for fatal in range(len(steps)):
        count = 0

        def fail(operation, fatal=fatal):
            nonlocal count
            count += 1
            if count == fatal + 1:
                raise OSError(5, "injected")

        with engine.enter(running.pidfd, ID, spec, program) as entry, pytest.raises(EngineError, match="injected"):
            _start(entry, None, observer=fail)
        assert (children, descriptors) == (new_children(), os.listdir("/proc/self/fd")), steps[fatal].describe()
    group = Path(engine.group_paths(ID)["pids"])
    assert [running.pid] == [int(pid) for pid in (group / "cgroup.procs").read_text().split()]


def test_a_terminal_of_its_own(engine, container):
    running, spec = container()
    program = ExecSpec(("sh", "-c", "tty; stty size; read line; echo got $line; sleep 60"), tty=True)
    with engine.enter(running.pidfd, ID, spec, program) as entry:
        entry.begin(terminal_size=(10, 20))
        entry.complete()
        text = ""
        while "20\r\n" not in text:
            text += os.read(entry.terminal, 4096).decode()
        assert "/dev/pts/0\r\n10 20\r\n" == text
        assert (10, 20) == terminals.size_of(entry.terminal)
        os.write(entry.terminal, b"line\n")
        while "got line\r\n" not in text:
            text += os.read(entry.terminal, 4096).decode()
        os.close(entry.terminal)  # a terminal that hangs up takes its programs along
        assert 129 == entry.wait(timeout_seconds=20)


def test_a_container_that_has_ended(engine, container):
    running, spec = container("exit 0")
    running.wait(timeout_seconds=20)
    with pytest.raises(EngineError, match="the container is not running"):
        engine.enter(running.pidfd, ID, spec, ExecSpec(("true",)))


def test_it_ends_with_the_container(engine, container):
    running, spec = container()
    with engine.enter(running.pidfd, ID, spec, ExecSpec(("sleep", "600"))) as entry:
        _start(entry)
        running.kill()
        assert 137 == entry.wait(timeout_seconds=20)


def test_what_watches_the_processes_inside_sees_nothing_of_the_host(container, enter):
    """A loop in the container looks at the descriptors and executable of each new process, from its first moment on."""
    spy = (
        "touch /spied; while true; do for link in /proc/[0-9]*/fd/* /proc/[0-9]*/exe /proc/[0-9]*/cwd; do "
        "case $link in /proc/1/*) continue;; esac; "
        "to=$(stat -c %N $link 2>/dev/null) && echo $to >> /spied; done; done"
    )
    pair = container(spy)
    for _ in range(25):
        assert (0, "") == enter(pair, ("usleep", "3000"))
    shown = enter(pair, "cat /spied")[1]
    assert "busybox" in shown  # it does see the programs, once they are there
    assert [] == [line for line in shown.splitlines() if "python" in line or "socket:" in line or "/work" in line]


@pytest.mark.parametrize("path", ["/proc/self/exe", "/trap", "/unreadable", "exe", "/proc/1/root/trap"])
def test_our_interpreter_is_not_to_be_run(engine, image, container, tmp_path, path):
    """By no way, though all that it takes to run is there: the loader and the libraries of the host, say."""
    layer = tmp_path / "layer"
    layer.mkdir()
    for name, mode in (("trap", 0o755), ("unreadable", 0o111)):
        (layer / name).write_text("#!/proc/self/exe -c\n")
        (layer / name).chmod(mode)
    libraries = tuple(Mount("bind", name, name) for name in ("/lib", "/lib64", "/usr/lib") if os.path.isdir(name))
    running, spec = container(layers=(*image.layers, layer), mounts=libraries)
    for user in ("root", "nobody"):
        program = ExecSpec((path, "print(1)"), {"PATH": "/proc/self"}, user)
        with engine.enter(running.pidfd, ID, spec, program) as entry, pytest.raises(StartError) as raised:
            _start(entry)
        assert raised.value.status in (126, 127)


@pytest.mark.parametrize(("may_trace", "right", "filtered"), [(False, 1 << 21, "0"), (True, 0, "2")])
def test_it_is_born_inside_with_no_right_more_than_the_container(engine, container, may_trace, right, filtered):
    """At its first step in there it has what the container may have, and the one right that its filter takes.

    Where somebody inside may seize it, not even that one: it is under its filter by then.
    """
    added = ("SYS_PTRACE",) if may_trace else ()
    running, spec = container(no_new_privileges=False, add_capabilities=added)

    def tell(operation):
        if type(operation).__name__ == "NewSession":  # the first step after the second clone
            fields = _fields(Path("/proc/thread-self/status").read_text())
            names = sorted(os.listdir("/proc/self/fd"))
            raise OSError(0, f"{fields['CapPrm']} {fields['CapBnd']} {fields['NSpid']} {fields['Seccomp']} {names}")

    entry = engine.enter(running.pidfd, ID, spec, ExecSpec(("true",), user="nobody"))
    with pytest.raises(StartError) as raised:
        _start(entry, observer=tell)
    permitted, bounding, number, seccomp = str(raised.value).rsplit(": ", 1)[1].split()[:4]
    assert (f"{right:016x}", f"{spec.capability_mask:016x}") == (permitted, bounding)
    assert int(number) > 1
    assert filtered == seccomp
    assert "['0', '1', '2', '3', '4']" in str(raised.value)  # 3 is the report; the last is that of the listing itself


def test_a_process_that_is_not_the_containers_is_not_taken_for_the_program(engine, container):
    """Who has seized our process can write into the memory that it shares with the engine."""
    running, spec = container(add_capabilities=("SYS_PTRACE",))
    with subprocess.Popen(["sleep", "600"]) as other:
        entry = engine.enter(running.pidfd, ID, spec, ExecSpec(("sleep", "0.2")))

        def tell(operation):
            if type(operation).__name__ == "NewSession":
                entry._clock.sibling.value = other.pid

        with pytest.raises(StartError, match=f"process {other.pid} was given out as its own, and is not"):
            _start(entry, observer=tell)
        assert other.poll() is None
        other.kill()
    # The program itself, which nobody knows now, is a child of ours that ends with the container at the latest.
    assert os.WIFEXITED(os.wait()[1])


def test_a_killed_engine_takes_the_program_along(engine, image, tmp_path, leftovers):
    script = """
import sys, os, time
from pathlib import Path
from real_engine.container.engine import Engine
from real_engine.container.spec import ContainerSpec, ExecSpec
root, layer, base = map(Path, sys.argv[1:])
engine = Engine(root, group=root.name)
if layer == Path("/"):
    print(engine.sweep_groups())
    for hierarchy in engine.host.hierarchies:
        hierarchy.parent.rmdir()
    sys.exit()
spec = ContainerSpec((layer,), ("sleep", "600"), upper=base / "upper", work=base / "work")
container = engine.create(spec, "killed")
container.begin((0, 1, 2))
container.complete()
entry = engine.enter(container.pidfd, container.id, spec, ExecSpec(("sleep", "600")))
entry.begin((0, 1, 2))
entry.complete()
print(container.pid, entry.pid, flush=True)
time.sleep(600)
"""
    command = [sys.executable, "-c", script, str(tmp_path / f"onggi-killed-{os.getpid()}")]
    with subprocess.Popen(
        [*command, str(image.layers[0]), str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pids = process.stdout.readline().split()
        assert 2 == len(pids)
        process.kill()
    deadline = time.monotonic() + 10
    while any(_lives(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [] == [pid for pid in pids if _lives(pid)]
    swept = subprocess.run([*command, "/", "/"], capture_output=True, text=True, timeout=30, check=True)
    assert "['killed']" == swept.stdout.strip()


def test_its_first_process_claims_no_namespaces_of_its_own(engine, container):
    running, spec = container()
    with engine.enter(running.pidfd, ID, spec, ExecSpec(("true",))) as entry:
        _start(entry)
        assert 0 == entry.wait(timeout_seconds=20)
        (clone,) = [step for step in entry.steps if step.call.startswith("clone3(")]
    assert ("clone3(0)", "CloneOutside") == (clone.call, clone.operation)
    assert "no namespace is new" in clone.why


def test_what_the_phases_took(engine, container):
    running, spec = container(limits=Limits(pids=20))
    with engine.enter(running.pidfd, ID, spec, ExecSpec(("true",))) as entry:
        _start(entry)
        assert ["cgroup", "clone", "enter", "confine", "exec"] == [phase.name for phase in entry.phases]
        assert all(step.end_seconds > step.begin_seconds > 0 for step in entry.steps)
        whole = entry.started_seconds - entry.requested_seconds
        assert pytest.approx(whole, abs=1e-9) == sum(phase.wall_seconds for phase in entry.phases)
        assert 0 == entry.wait(timeout_seconds=20)


def _start(entry: Entry, stdio: tuple[int, int, int] | None = (0, 1, 2), observer: Observer | None = None) -> None:
    entry.begin(stdio, observer=observer)
    entry.complete()


def _fields(status: str) -> dict[str, str]:
    return {
        name: value.split()[-1] for name, _, value in (line.partition(":\t") for line in status.splitlines()) if value
    }


def _lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
