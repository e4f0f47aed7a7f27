"""How containers start and end, and that nothing of them is left, whatever goes wrong."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from real_engine.container.container import StartError
from real_engine.container.engine import Engine
from real_engine.container.spec import ContainerSpec, Limits
from real_engine.errors import EngineError

pytestmark = pytest.mark.root

# An engine that starts a container which sleeps, tells its id and pid, and waits: to be killed.
_ENGINE = """
import sys
from pathlib import Path
from real_engine.container.engine import Engine
from real_engine.container.spec import ContainerSpec
root, layer = map(Path, sys.argv[1:])
with Engine(root).start(ContainerSpec((layer,), ("sleep", "600"))) as container:
    print(container.id, container.pid, flush=True)
    container.wait()
"""


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 42", 42), ("sh -c 'kill -TERM $$'; exit $?", 143), ("kill -KILL $$; exit 3", 3)],
    ids=["success", "failure", "a child's signal", "process 1 is immune from inside"],
)
def test_exit_status(run, script, status, leftovers):
    assert status == run(script)[0]


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        (("nosuch",), 127, r"nosuch: executable file not found in \$PATH"),
        (("/no/such",), 127, "/no/such: No such file"),
        (("/etc/passwd/x",), 127, "Not a directory"),
        (("/etc/passwd",), 126, "Permission denied"),
        (("/etc",), 126, "Permission denied"),
        (("/bin/text",), 126, "Exec format error"),
    ],
)
def test_a_program_that_cannot_be_run(run, image, tmp_path, argv, status, message, leftovers):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/text").write_text("no program\n")
    (tmp_path / "bin/text").chmod(0o755)
    with pytest.raises(StartError, match=message) as raised:
        run(argv, layers=(*image.layers, tmp_path))
    assert status == raised.value.status


def test_a_failure_at_any_step_leaves_nothing(engine, image, leftovers, new_children):
    """Every step in turn fails, in the engine's process or the container's; then all is gone, descriptors too."""
    spec = ContainerSpec(image.layers, ("true",), limits=Limits(memory_bytes=64 << 20, cpus=0.5, pids=10))
    steps = [operation for phase in engine.plan(spec) for operation in phase.operations]
    mounts = _mounts_of(engine)
    for fatal in range(len(steps)):
        count = 0

        def fail(operation, fatal=fatal):
            nonlocal count
            count += 1
            if count == fatal + 1:
                raise OSError(5, "injected")

        descriptors = os.listdir("/proc/self/fd")
        with pytest.raises(EngineError, match="injected"):
            engine.start(spec, observer=fail)
        assert [] == leftovers(), steps[fatal].describe()
        assert descriptors == os.listdir("/proc/self/fd")
    assert mounts == _mounts_of(engine)
    assert set() == new_children(), "no zombie either"


def test_an_interrupt_before_the_clone_leaves_nothing(engine, image, leftovers):
    def interrupt(operation):
        if "clone3" in operation.describe():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.start(ContainerSpec(image.layers, ("true",)), observer=interrupt)
    assert [] == leftovers()


def test_an_interrupt_while_it_starts_leaves_nothing(engine, image, leftovers):
    """SIGINT comes while the container's process is busy with its mounts, and the engine waits for it."""

    def dawdle(operation):
        if "pivot_root" in operation.describe():
            time.sleep(30)

    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        engine.start(ContainerSpec(image.layers, ("true",)), observer=dawdle)
    timer.join()
    assert time.monotonic() - begin < 10
    assert [] == leftovers()


def test_leaving_the_context_ends_all_that_runs_in_it(engine, image, leftovers):
    script = "for i in 1 2 3; do sleep 600 & done; exec sleep 600"
    with engine.start(ContainerSpec(image.layers, ("sh", "-c", script))) as container:
        pid = container.pid
        assert Path(f"/proc/{pid}").exists()
    assert 137 == container.status
    assert not Path(f"/proc/{pid}").exists()
    container.remove()  # a second time does no harm
    container.kill()


def test_wait_with_a_timeout(engine, image, leftovers):
    with engine.start(ContainerSpec(image.layers, ("sleep", "600"))) as container:
        with pytest.raises(TimeoutError, match="still runs"):
            container.wait(timeout_seconds=0.05)
        container.kill(signal.SIGSTOP)
        container.kill()
        assert 137 == container.wait(timeout_seconds=10)
        assert 137 == container.wait()


def test_a_signal_that_process_1_handles(engine, image, leftovers):
    receive, send = os.pipe()
    script = "trap 'exit 9' TERM; echo ready; while true; do sleep 0.02; done"
    with engine.start(ContainerSpec(image.layers, ("sh", "-c", script)), stdout=send) as container:
        assert b"ready\n" == os.read(receive, 100)
        container.kill(signal.SIGTERM)
        assert 9 == container.wait(timeout_seconds=10)
    os.close(receive)
    os.close(send)


def test_standard_streams_may_come_in_any_order(engine, image, leftovers):
    """The descriptors may be 0, 1 and 2 themselves, and crossed."""
    inputs, outputs = os.pipe(), os.pipe()
    os.write(inputs[1], b"from the engine\n")
    os.close(inputs[1])
    spec = ContainerSpec(image.layers, ("sh", "-c", "cat; echo oops >&2"))
    with engine.start(spec, stdin=inputs[0], stdout=outputs[1], stderr=outputs[1]) as container:
        os.close(outputs[1])
        assert 0 == container.wait()
        assert b"from the engine\noops\n" == os.read(outputs[0], 100)
    os.close(inputs[0])
    os.close(outputs[0])


def test_a_killed_engine_takes_its_container_along_and_the_next_collects_the_rest(engine, image, leftovers):
    command = [sys.executable, "-c", _ENGINE, str(engine.root), str(image.layers[0])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        container_id, pid = process.stdout.readline().split()
        assert [] == engine.sweep()  # its engine lives
        process.kill()
        process.wait()
    deadline = time.monotonic() + 10
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(pid)
    assert container_id in {path.name for path in leftovers()}
    standard = Engine(engine.root)  # an engine sweeps when it begins
    groups = [hierarchy.parent / container_id for hierarchy in standard.host.hierarchies]
    assert [] == leftovers() + [group for group in groups if group.exists()]


def test_phases_add_up_to_the_whole(engine, image, leftovers):
    with engine.start(ContainerSpec(image.layers, ("true",))) as container:
        phases, steps = container.phases, container.steps
        assert ["prepare", "cgroup", "clone", "mounts", "pivot", "confine", "exec"] == [phase.name for phase in phases]
        whole = container.started_seconds - container.requested_seconds
        assert pytest.approx(whole, abs=1e-9) == sum(phase.wall_seconds for phase in phases)
        assert phases[0].begin_seconds == container.requested_seconds
        assert all(before.end_seconds == after.begin_seconds for before, after in pairwise(phases))
        assert all(before.end_seconds <= after.begin_seconds for before, after in pairwise(steps))
        assert all(step.end_seconds > step.begin_seconds > 0 for step in steps)
        assert 0 < sum(phase.cpu_seconds for phase in phases) < 2 * whole + 0.01  # the clone runs on two cores at once
        container.wait()
        assert steps == container.steps


def test_a_plan_makes_nothing(engine, image, leftovers):
    text = "\n".join(
        step.describe() for phase in engine.plan(ContainerSpec(image.layers, ("true",))) for step in phase.operations
    )
    for call in ("clone3", "overlay", "pivot_root", "seccomp", "execve"):
        assert call in text
    assert text.index("capset") < text.index("SECCOMP_SET_MODE_FILTER") < text.index("execve")


def test_many_at_once_from_many_processes(engine, image, leftovers):
    """As the contention experiment does: each worker has its own copy of the engine."""
    context = multiprocessing.get_context("fork")
    with context.Pool(8, initializer=_adopt, initargs=(engine, image.layers)) as pool:
        assert [0] * 16 == pool.map(_start_one, range(16), chunksize=1)


def test_many_at_once_from_threads(engine, image, leftovers):
    statuses = []

    def work():
        for _ in range(3):
            with engine.start(ContainerSpec(image.layers, ("true",))) as container:
                statuses.append(container.wait())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [0] * 12 == statuses


def _adopt(engine, layers):
    _start_one.known = engine, layers


def _start_one(number):
    engine, layers = _start_one.known
    with engine.start(ContainerSpec(layers, ("sh", "-c", "sleep 0.1"))) as container:
        return container.wait(20)


def _mounts_of(engine: Engine) -> list[str]:
    """The mounts on the host that have to do with the engine: others may mount things meanwhile."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(engine.root) in line]


def _runs(pid: str) -> bool:
    """Whether the process lives: a zombie, which nobody here may be able to wait for, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
