"""An ordinary user's engine from outside: docker's command line, and what the kernel shows of it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ordinary_user import FAR_ADDRESS, FIRST_SUBORDINATE, USER, Machine, wait_for_the_end_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command line: make peers"),
]
IMAGE = "onggi/busybox"
ANSWER = "while :; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\ninside' | nc -l -p 80; done"
single = pytest.mark.parametrize("user_machine", [False], indirect=True)


def _has(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"there is no {program}: make peers")


@_has("newuidmap")
def test_users_of_containers_are_subordinate_ids_outside(user_machine: Machine) -> None:
    docker = user_machine.start("--uplink", "none")
    container = docker("run", "-d", "-u", "33", IMAGE, "sleep", "60").stdout.strip()
    pid = docker("inspect", "-f", "{{.State.Pid}}", container).stdout.strip()
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    uids = next(line for line in status if line.startswith("Uid:")).split()[1:]

    assert [str(FIRST_SUBORDINATE + 32)] * 4 == uids
    assert "uid=33" in docker("exec", container, "id").stdout
    assert "uid=0(root)" in docker("exec", "-u", "0", container, "id").stdout
    assert "name=rootless" in docker("info", "-f", "{{.SecurityOptions}}").stdout
    assert "[WARNING: one user" not in docker("info", "-f", "{{.Warnings}}").stdout


@single
def test_without_subordinate_ids_there_is_one_user_and_it_is_said(user_machine: Machine) -> None:
    docker = user_machine.start("--uplink", "none")
    refused = docker("run", "--rm", "-u", "33", IMAGE, "id")

    assert "subuid grants no ids to student" in user_machine.log
    assert "one user id only" in docker("info", "-f", "{{.Warnings}}").stdout
    assert "uid=0(root) gid=0(root)" in docker("run", "--rm", IMAGE, "id").stdout
    assert 126 >= refused.status > 0
    assert "does not exist in this user namespace (see /etc/subuid)" in refused.stderr
    assert USER == (user_machine.root / "engine.json").stat().st_uid


@pytest.mark.parametrize("uplink", [pytest.param(name, marks=_has(name)) for name in ("pasta", "slirp4netns")])
def test_containers_reach_the_world_and_not_the_loopback_of_the_machine(user_machine: Machine, uplink: str) -> None:
    docker = user_machine.start("--uplink", uplink)
    fetch = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 5 nc {FAR_ADDRESS} 8000"
    ask = "import socket, sys; print(socket.create_connection(('127.0.0.1', int(sys.argv[1])), 3).recv(99).decode())"

    assert "from afar" in docker("run", "--rm", IMAGE, "sh", "-c", fetch).stdout
    with user_machine.serving_on_its_loopback() as port:
        assert "from the loopback\n" == user_machine.inside("/usr/bin/python3", "-c", ask, str(port)).stdout
        # Its own loopback, the gateways that the two programs have, and the machine's address by which it goes out.
        addresses = "127.0.0.1 192.0.2.1 10.0.2.2 192.0.2.10"
        script = f"for address in {addresses}; do : | timeout 1 nc $address {port}; done; echo end"
        assert "end\n" == docker("run", "--rm", IMAGE, "sh", "-c", script).stdout


def test_without_an_uplink_containers_reach_each_other_and_it_is_said(user_machine: Machine) -> None:
    docker = user_machine.start("--uplink", "none")
    docker("network", "create", "inner")
    docker("run", "-d", "--name", "one", "--network", "inner", IMAGE, "sleep", "60")

    assert "no network outside for containers (asked for)" in docker("info", "-f", "{{.Warnings}}").stdout
    assert 0 == docker("run", "--rm", "--network", "inner", IMAGE, "ping", "-c1", "-W3", "one").status


def test_published_ports_are_open_on_the_machine(user_machine: Machine) -> None:
    docker = user_machine.start("--uplink", "none")
    docker("run", "-d", "--name", "web", "-p", "127.0.0.1:8080:80", IMAGE, "sh", "-c", ANSWER)
    fetch = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/', timeout=3).read().decode())"
    deadline = time.monotonic() + 15
    while "inside" not in (outcome := user_machine.inside("/usr/bin/python3", "-c", fetch)).stdout:
        assert time.monotonic() < deadline, outcome
    taken = docker("run", "--rm", "-p", "127.0.0.1:8080:80", IMAGE, "true")
    refused = docker("run", "--rm", "-p", "80:80", IMAGE, "true")

    assert "port is already allocated" in taken.stderr
    assert "bind: permission denied (a rootless engine may open ports from" in refused.stderr
    docker("rm", "-f", "web")
    assert "Connection refused" in user_machine.inside("/usr/bin/python3", "-c", fetch).stderr


def test_limits_are_left_out_with_a_warning_where_no_cgroup_is_delegated(user_machine: Machine) -> None:
    docker = user_machine.start("--uplink", "none")
    outcome = docker("run", "--rm", "-m", "32m", "--cpus", "0.5", "--pids-limit", "9", IMAGE, "echo", "runs")

    assert "runs\n" == outcome.stdout
    for what in ("memory limit capabilities", "CPU CFS scheduler", "PIDs limit capabilities"):
        assert f"Your kernel does not support {what}" in outcome.stderr
    assert "none" == docker("info", "-f", "{{.CgroupDriver}}").stdout.strip()


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts", "network"])
def test_namespaces_of_the_host(user_machine: Machine, kind: str) -> None:
    docker = user_machine.start("--uplink", "none")
    docker("run", "-d", "--name", "shared", f"--{kind}", "host", IMAGE, "sleep", "60")

    assert "0\n" == docker("exec", "shared", "id", "-u").stdout


@_has("newuidmap")
def test_a_build_whose_steps_remove_and_chown(user_machine: Machine) -> None:
    docker = user_machine.start("--uplink", "none")
    docker("create", IMAGE)  # the built-in image is made when a container first asks for it
    recipe = f"FROM {IMAGE}\nRUN rm /etc/passwd && mkdir /d && chown 33 /d\nRUN rm -r /d && mkdir /d && touch /d/new\n"
    built = docker("build", "-t", "made", "-", given=recipe.encode())

    assert 0 == built.status, built
    assert "new\n" == docker("run", "--rm", "made", "ls", "/d").stdout
    assert 0 != docker("run", "--rm", "made", "cat", "/etc/passwd").status


def test_volumes_commit_and_copies(user_machine: Machine) -> None:
    docker = user_machine.start("--uplink", "none")
    docker("run", "--name", "writer", "-v", "kept:/v", IMAGE, "sh", "-c", "echo kept > /v/file; echo own > /own")
    docker("commit", "writer", "copy")
    docker("cp", "writer:/own", "got")

    assert "kept\n" == docker("run", "--rm", "-v", "kept:/v", IMAGE, "cat", "/v/file").stdout
    assert "own\n" == docker("run", "--rm", "copy", "cat", "/own").stdout
    assert "own\n" == (docker.home / "got").read_text()


@_has("pasta")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_containers_outlive_the_daemon_in_the_same_namespaces(user_machine: Machine, number: int) -> None:
    docker = user_machine.start()
    docker("run", "-d", "--name", "stays", "-p", "8080:80", IMAGE, "sleep", "600")
    supervisor, keeper = user_machine.pid_of("real_engine.supervisor"), user_machine.pid_of("real_engine.rootless")
    status = user_machine.stop(number)
    docker = user_machine.start()
    daemon = user_machine.pid_of("classroom.cli")

    assert (0 if number == signal.SIGTERM else -signal.SIGKILL) == status
    assert supervisor == user_machine.pid_of("real_engine.supervisor")
    assert keeper == user_machine.pid_of("real_engine.rootless")
    assert user_machine.namespaces(supervisor) == user_machine.namespaces(daemon)
    assert "0.0.0.0:8080" in docker("port", "stays").stdout
    assert 0 == docker("exec", "stays", "ip", "route").status
    fetch = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 5 nc {FAR_ADDRESS} 8000"
    assert "from afar" in docker("exec", "stays", "sh", "-c", fetch).stdout


@_has("pasta")
def test_a_killed_keeper_is_replaced_by_one_that_finds_the_namespaces_again(user_machine: Machine) -> None:
    docker = user_machine.start()
    docker("run", "-d", "--name", "stays", IMAGE, "sleep", "600")
    supervisor = user_machine.pid_of("real_engine.supervisor")
    keeper = user_machine.pid_of("real_engine.rootless")
    theirs = user_machine.children(keeper)
    user_machine.stop(signal.SIGKILL)
    os.kill(keeper, signal.SIGKILL)
    wait_for_the_end_of(theirs)
    docker = user_machine.start()

    assert 2 == len(theirs)  # the anchor and pasta
    assert user_machine.namespaces(supervisor) == user_machine.namespaces(user_machine.pid_of("classroom.cli"))
    assert 0 == docker("exec", "stays", "true").status
    fetch = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 5 nc {FAR_ADDRESS} 8000"
    assert "from afar" in docker("exec", "stays", "sh", "-c", fetch).stdout


def test_nothing_is_left_when_the_last_has_gone(user_machine: Machine) -> None:
    docker = user_machine.start()
    assert 0 == docker("run", "--rm", "-p", "8080:80", IMAGE, "true").status
    theirs = user_machine.children(user_machine.pid_of("real_engine.rootless"))
    user_machine.stop()

    assert theirs
    user_machine.wait_until_nothing_runs()
    wait_for_the_end_of(theirs)


def test_what_a_rootless_engine_can_not_do_is_refused(user_machine: Machine) -> None:
    for options, reason in (
        (("--group", "docker"), "leave --group away"),
        (("--no-userland-proxy",), "no other way to published ports"),
    ):
        assert 0 != user_machine.serve(*options).wait(30)
        assert reason in user_machine.log


def test_compose_builds_and_runs_a_project(user_machine: Machine, tmp_path: Path) -> None:
    docker = user_machine.start("--uplink", "none")
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo built > /made && chown 7:7 /made\n")
    text = """
    services:
      db: {build: ., command: sleep 60, init: true, healthcheck: {test: [CMD, test, -f, /made], interval: 1s}}
      web: {image: p-db, depends_on: {db: {condition: service_healthy}}, command: "ping -c1 -W3 db"}
    """
    (tmp_path / "compose.yaml").write_text(text)
    command = [sys.executable, "-m", "classroom.cli", "compose", "-p", "p"]

    def compose(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90
        )

    environment = {**os.environ, **docker.variables(), "PYTHONPATH": str(Path(__file__).parents[3])}
    up = compose("up", "--exit-code-from", "web", "-t", "0")

    assert 0 == up.returncode, up.stderr
    assert "1 packets received" in up.stdout
    assert "7 7" in compose("run", "--rm", "--no-deps", "-T", "db", "stat", "-c", "%u %g", "/made").stdout
    assert 0 == compose("down", "-v", "-t", "0").returncode
    assert "" == docker("ps", "-aq").stdout
