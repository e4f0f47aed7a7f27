"""`onggi compose` on our daemon and on Docker's: it is the same API."""

import json
import shutil
import signal
import subprocess
import time

import pytest

pytestmark = pytest.mark.root

TEXT = """
services:
  web:
    image: bb
    command: ["sh", "-c", "echo hello; echo oops >&2; trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done"]
    environment: {A: "1"}
    depends_on: {db: {condition: service_healthy}}
    volumes: ["vol:/v"]
    configs: [{source: c, target: /etc/c}]
  db: {image: bb, command: [sleep, "100"], init: true, healthcheck: {test: "true", interval: 0.3s}}
volumes: {vol: }
configs: {c: {content: "from the file"}}
"""


def test_a_life(compose):
    done = compose("up", "-d", text=TEXT)
    assert 0 == done.returncode, done.stderr
    assert f"Container {compose.name}-web-1  Started" in done.stderr
    listed = [json.loads(line) for line in compose("ps", "--format", "json").stdout.splitlines()]
    assert [("db", "healthy"), ("web", "")] == [(one["Service"], one["Health"]) for one in listed]
    inside = compose("exec", "-T", "web", "sh", "-c", "cat /etc/c; echo; wget -q -O- db 2>&1; echo $A; exit 7")
    assert 7 == inside.returncode
    assert inside.stdout.startswith("from the file\n")
    assert "can't connect to remote host" in inside.stdout  # the name is known, and nobody listens
    assert ["web-1  | hello", "web-1  | oops"] == sorted(compose("logs", "web").stdout.splitlines())
    again = compose("up", "-d")
    assert f"Container {compose.name}-web-1  Running" in again.stderr
    assert "Recreate" not in again.stderr
    changed = compose("up", "-d", text=TEXT.replace('A: "1"', 'A: "2"'))
    assert f"Container {compose.name}-web-1  Recreated" in changed.stderr
    assert f"Container {compose.name}-db-1  Running" in changed.stderr
    scaled = compose("scale", "web=3")
    assert 0 == scaled.returncode, scaled.stderr
    assert 3 == len(compose("ps", "-q", "web").stdout.split())
    assert 0 == compose("stop", "-t", "0").returncode
    assert "" == compose("ps", "-q").stdout
    assert 0 == compose("start").returncode
    assert 4 == len(compose("ps", "-q").stdout.split())
    assert 0 == compose("down", "-t", "0").returncode
    assert "" == compose("ps", "-a", "-q").stdout


ONE_SHOT = """
services:
  init: {image: bb, command: [sh, -c, "exit $STATUS"]}
  web: {image: bb, command: [sleep, "100"], depends_on: {init: {condition: service_completed_successfully}}}
"""


@pytest.mark.parametrize("status", [0, 3])
def test_waiting_is_done_when_what_is_to_complete_has(compose, status):
    done = compose("up", "--wait", text=ONE_SHOT.replace("$STATUS", str(status)))
    assert ((0, "") if status == 0 else (2, "init")) == (
        done.returncode,
        "init" if "didn't complete" in done.stderr else "",
    )
    assert (["web"] if status == 0 else []) == compose("ps", "--services").stdout.split()


def test_logs_of_a_time(compose):
    compose("up", "-d", "--wait", text=ONE_SHOT.replace("exit $STATUS", "echo hello"))
    assert ["init-1  | hello"] == compose("logs", "--no-color", "--since", "10m", "init").stdout.splitlines()
    assert "" == compose("logs", "--until", "10m").stdout
    assert "failed to parse value as time" in compose("logs", "--since", "yesterday").stderr


def test_run_and_pipes(compose):
    compose("create", text=TEXT)
    done = compose(
        "run", "--rm", "-T", "--no-deps", "-e", "X=y", "db", "sh", "-c", "cat; echo $X; exit 3", given="hi\n"
    )
    assert (3, "hi\ny\n") == (done.returncode, done.stdout)
    assert 2 == len(compose("ps", "-a", "-q").stdout.split())


def test_ctrl_c_stops_in_order(compose, tmp_path):
    (tmp_path / "compose.yaml").write_text(TEXT)
    process = subprocess.Popen(
        [*compose.base, "up", "-t", "5"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = ""
    while "hello" not in line:
        line = process.stdout.readline()
        assert line, process.stderr.read()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert 130 == process.returncode
    assert "web-1  | bye" in output
    assert "Gracefully stopping" in errors
    assert errors.index("web-1  Stopped") < errors.index("db-1  Stopping")
    assert "" == compose("ps", "-q").stdout


def test_the_second_ctrl_c_kills(compose, tmp_path):
    stubborn = "trap '' TERM; echo hello; while :; do sleep 1; done"
    service = {"image": "bb", "stop_grace_period": "1m", "command": ["sh", "-c", stubborn]}
    text = json.dumps({"services": {"a": service}})
    (tmp_path / "compose.yaml").write_text(text)
    process = subprocess.Popen(
        [*compose.base, "up"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while "hello" not in (line := process.stdout.readline()):
        assert line, process.stderr.read()
    process.send_signal(signal.SIGINT)
    while "Stopping" not in (line := process.stderr.readline()):
        assert line
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert 130 == process.returncode
    assert "a-1  | exited with code 137" in output


def test_up_ends_when_all_have_ended_or_as_the_one_that_counts(compose):
    text = "services: {a: {image: bb, command: [sh, -c, 'echo done; exit 3']}, b: {image: bb, command: [sleep, '0.5']}}"
    done = compose("up", text=text)
    assert 0 == done.returncode, done.stderr
    assert "a-1  | done" in done.stdout
    assert "a-1  | exited with code 3" in done.stdout
    done = compose("up", "--exit-code-from", "a", "-t", "0", text=text.replace("0.5", "100"))
    assert 3 == done.returncode


def test_an_image_is_built(compose, tmp_path):
    (tmp_path / "ctx").mkdir()
    (tmp_path / "ctx/Dockerfile").write_text("FROM bb\nARG WHO\nRUN echo $WHO > /who\nCMD cat /who\n")
    text = json.dumps(
        {
            "services": {
                "a": {"build": {"context": "ctx", "args": {"WHO": "me"}}},
                "b": {"build": {"context": "ctx", "dockerfile_inline": "FROM bb\nCMD echo inline\n"}},
            }
        }
    )
    done = compose("up", text=text)
    assert 0 == done.returncode, done.stderr
    assert {"a-1  | me", "b-1  | inline"} <= set(done.stdout.splitlines())
    failed = compose("build", text=text.replace("CMD echo inline", "RUN exit 4"))
    assert 2 == failed.returncode
    assert "returned a non-zero code: 4" in failed.stderr


def test_what_goes_wrong_is_one_line(compose):
    for text, message in (
        ("services: {a: {image: bb, command: [/nosuch]}}", "/nosuch"),
        ("services: {a: {image: 'localhost:1/nosuch'}}", "refused"),
        ("services: {a: {image: bb, pots: []}}", "did you mean `ports`?"),
        (("services: {a: {image: bb, command: ['false']}, b: {image: bb, depends_on: {a: {condition: "
         "service_completed_successfully}}}}"), "didn't complete successfully: exit 1"),
    ):  # fmt: skip
        done = compose("up", "-d", text=text)
        assert 2 == done.returncode
        assert message in done.stderr.splitlines()[-1]
        assert done.stderr.splitlines()[-1].startswith("onggi: ")


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="needs docker-compose")
def test_docker_compose_sees_our_containers_and_we_see_its(compose, tmp_path):
    text = "version: '2.4'\nservices: {a: {image: bb, command: [sleep, '100'], init: true}}"
    other = ["docker-compose", "-H", compose.url, "-p", compose.name, "-f", str(tmp_path / "compose.yaml")]

    def theirs(*arguments):
        return subprocess.run([*other, *arguments], capture_output=True, text=True, timeout=60)

    assert 0 == compose("up", "-d", text=text).returncode
    ids = compose("ps", "-q").stdout
    assert ids == theirs("ps", "-q").stdout
    assert 0 == theirs("exec", "-T", "a", "true").returncode
    assert 0 == theirs("down", "-t", "0").returncode
    assert "" == compose("ps", "-a", "-q").stdout
    started = theirs("up", "-d")
    assert 0 == started.returncode, started.stderr
    assert 1 == len(compose("ps", "-q").stdout.split())
    assert 0 == compose("exec", "-T", "a", "true").returncode


def test_logs_follow_until_the_end(compose):
    compose("up", "-d", text="services: {a: {image: bb, command: [sh, -c, 'echo 1; sleep 0.5; echo 2']}}")
    begin = time.monotonic()
    assert ["a-1  | 1", "a-1  | 2"] == compose("logs", "-f").stdout.splitlines()
    assert ["2"] == compose("logs", "--tail", "1", "--no-log-prefix").stdout.splitlines()
    assert time.monotonic() - begin < 20
