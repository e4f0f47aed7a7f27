"""The real docker command, and our own, watched on a daemon of ours."""

import json
import os
import shutil
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.peer,
    pytest.mark.skipif(not shutil.which("docker"), reason="the docker command is not installed: run `make peers`"),
]
IMAGE = "onggi/busybox:latest"  # what every engine of ours has
ONGGI = [sys.executable, "-m", "classroom.cli", "engine"]


@pytest.fixture
def onggi(engine_url):
    def run(*arguments, **options):
        environment = {**os.environ, "DOCKER_HOST": engine_url}
        return subprocess.run(
            [*ONGGI, *arguments], capture_output=True, text=True, timeout=60, check=False, env=environment, **options
        )

    return run


@pytest.fixture
def sleeper(engine_url):
    environment = {**os.environ, "DOCKER_HOST": engine_url}
    command = ["docker", "run", "-d", "-m", "64m", "--cap-drop", "CHOWN", IMAGE, "sleep", "100"]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    yield made.stdout.strip()
    subprocess.run(["docker", "rm", "-f", made.stdout.strip()], env=environment, capture_output=True, check=True)


def test_explain_tells_the_whole_life_of_a_container(onggi, tmp_path):
    path = tmp_path / "s.jsonl"
    result = onggi("explain", "--record", str(path), "--", "docker", "run", "--rm", IMAGE, "echo", "hi")
    assert ("hi\n", 0) == (result.stdout, result.returncode)
    steps = [record for record in map(json.loads, path.read_text().splitlines()) if record["kind"] == "step"]
    order = ["MakeContainer", "LayCable", "Clone", "PivotRoot", "Execute", "StartInSupervisor", "ProgramEnded"]
    places = [[step["operation"] for step in steps].index(name) for name in [*order, "RemoveContainer"]]
    assert sorted(places) == places
    assert all(step["why"] and step["seconds"] >= 0 for step in steps)
    assert 60 < len(steps)


def test_explain_tells_how_an_exec_comes_to_be_in_a_container(onggi, sleeper):
    result = onggi("explain", "--", "docker", "exec", sleeper, "echo", "hi")
    assert ("hi\n", 0) == (result.stdout, result.returncode)
    places = [result.stderr.index(call) for call in ("setns(pidfd", "capset(", "seccomp(", "execve(echo hi)")]
    assert sorted(places) == places


def test_a_steps_parts_stand_between_its_beginning_and_its_end(onggi):
    result = onggi("explain", "--", "docker", "run", "--rm", IMAGE, "true")
    places = [result.stderr.index(each) for each in ("┌ its places in networks", "│ ip link add", "└ its places")]
    assert sorted(places) == places
    assert "its own time" in result.stderr[places[-1] :].splitlines()[0]


def test_the_status_is_the_commands(onggi):
    result = onggi("explain", "--", "docker", "run", "--rm", IMAGE, "sh", "-c", "exit 7")
    assert 7 == result.returncode
    assert 125 == onggi("trace", "--", "docker", "run", "--rm", "--network", "nowhere", IMAGE).returncode


def test_trace_shows_requests_frames_and_input_by_its_length(onggi):
    result = onggi("trace", "--", "docker", "run", "--rm", "-i", IMAGE, "cat", input="a secret\n")
    assert "a secret\n" == result.stdout
    assert "101 UPGRADED" in result.stderr
    assert "stdin, 9 B\n" in result.stderr
    assert "stdout, 9 B: a secret" in result.stderr


def test_a_build_tells_why_the_cache_missed(onggi, tmp_path):
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo one > /f\n")
    assert 0 == onggi("build", "-t", "why", str(tmp_path)).returncode
    again = onggi("build", "--explain", "-t", "why", str(tmp_path))
    assert "the same instruction upon the same parent was made before" in again.stderr
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo two > /f\n")
    changed = onggi("build", "--explain", "-t", "why", str(tmp_path))
    assert "the nearest differs in Cmd: /bin/sh -c echo one > /f → /bin/sh -c echo two > /f" in changed.stderr
    assert "tar of upper" in changed.stderr


def test_network_steps_in_korean(onggi, sleeper):
    made = onggi("network", "create", "--explain", "--lang", "ko", "--subnet", "10.201.9.0/24", "seen")
    assert (0, 64) == (made.returncode, len(made.stdout.strip()))
    assert "호스트에 있는 스위치" in made.stderr
    joined = onggi("network", "connect", "--explain", "--lang", "ko", "seen", sleeper)
    assert "케이블입니다. 한쪽 끝으로 들어간 것이" in joined.stderr


def test_run_through_the_daemon(onggi, engine_url):
    result = onggi("run", "-H", engine_url, "--explain", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert ("out\n", 3) == (result.stdout, result.returncode)
    assert "execve(" in result.stderr


def test_inspect_kernel_shows_what_proc_shows(onggi, sleeper):
    result = onggi("inspect-kernel", "--json", sleeper)
    assert (0, "") == (result.returncode, result.stderr)
    seen = json.loads(result.stdout)
    rows = {key: {row["name"]: row for row in seen[key]} for key in ("namespaces", "capabilities", "mounts", "cgroups")}
    own = os.readlink(f"/proc/{seen['pid']}/ns/mnt")
    assert own == f"mnt:[{rows['namespaces']['mnt']['container']}]"
    assert "the host's" == rows["namespaces"]["user"]["note"]
    assert "Docker's default has CHOWN too" == rows["capabilities"]["effective"]["note"]
    assert rows["mounts"]["/"]["container"].startswith("overlay")
    limits = [row for name, row in rows["cgroups"].items() if name.strip() in ("memory.limit_in_bytes", "memory.max")]
    assert "64.0 MiB" in [row["container"] for row in limits]
    cables = [row for row in seen["interfaces"] if row["name"] == "eth0"]
    assert cables[0]["host"].startswith("veth")


def test_inspect_kernel_of_what_does_not_run_is_one_line_and_2(onggi, engine_url):
    environment = {**os.environ, "DOCKER_HOST": engine_url}
    command = ["docker", "create", IMAGE]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    for name, said in ((made, "is not running"), ("nobody", "No such container")):
        result = onggi("inspect-kernel", name)
        assert (2, 1) == (result.returncode, len(result.stderr.splitlines()))
        assert said in result.stderr


def test_a_daemon_that_is_not_ours_is_told_from_ours(onggi, tmp_path):
    result = onggi("explain", "-H", f"unix://{tmp_path}/none", "--", "docker", "ps")
    assert (2, 1) == (result.returncode, len(result.stderr.splitlines()))
    assert "cannot connect to the daemon" in result.stderr
