"""The streams of the API, byte by byte: attach, exec, wait, logs, stats and events without the docker command."""

import json
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from engine_api import EngineApi, Stream, dechunked, frames, of_stream
from served_engine import ServedEngine, served

pytestmark = [pytest.mark.root]

MEBIBYTE = 1 << 20
BOTH = {"stream": 1, "stdout": 1, "stderr": 1}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedEngine]:
    with served(tmp_path_factory.mktemp("streams")) as engine:
        yield engine


@pytest.fixture(scope="module")
def api(engine: ServedEngine) -> EngineApi:
    return engine.api


# --- attach ----------------------------------------------------------------------------------------------------------


def test_half_closed_at_once_and_all_output_of_both_streams_comes(api) -> None:
    count, rest = 9000, 125 * "."
    lines = f"seq -w 1 {count} | sed 's/$/{rest}/'"
    script = f"{lines} & {lines} >&2; wait"
    identifier = api.create("sh", "-c", script)
    with api.upgrade(f"/containers/{identifier}/attach", **BOTH) as stream:
        assert 101 == stream.status
        assert "application/vnd.docker.multiplexed-stream" == stream.headers["Content-Type"]
        stream.no_more()
        assert 204 == api.post(f"/containers/{identifier}/start").status
        data = stream.all()
    expected = "".join(f"{number:04d}{rest}\n" for number in range(1, count + 1)).encode()
    assert len(expected) > MEBIBYTE
    assert expected == of_stream(data, 1)
    assert expected == of_stream(data, 2)
    assert expected == of_stream(api.logs(identifier, stderr=0), 1)
    api.remove(identifier)


def test_input_to_its_end_and_the_output_after_it(api) -> None:
    identifier = api.create("sh", "-c", "wc -c; sleep 0.2; echo done", OpenStdin=True, StdinOnce=True, AttachStdin=True)
    with api.upgrade(f"/containers/{identifier}/attach", stdin=1, **BOTH) as stream:
        api.post(f"/containers/{identifier}/start")
        stream.send(b"x" * MEBIBYTE)
        stream.no_more()
        assert b"1048576\ndone\n" == of_stream(stream.all(), 1)
    assert 0 == api.wait(identifier)
    api.remove(identifier)


def test_a_terminal_is_raw_and_detach_keys_end_the_session_only(api) -> None:
    identifier = api.create("sh", "-c", "stty size; exec cat", Tty=True, OpenStdin=True, host={"ConsoleSize": [17, 42]})
    with api.upgrade(f"/containers/{identifier}/attach", stdin=1, detachKeys="ctrl-a,x", **BOTH) as stream:
        assert "application/vnd.docker.raw-stream" == stream.headers["Content-Type"]
        api.post(f"/containers/{identifier}/start")
        assert stream.until(b"17 42").startswith(b"17 42")
        stream.send(b"hi\n")
        stream.until(b"hi\r\nhi\r\n")
        stream.send(b"\x01x")
        stream.all()
    assert api.inspect(identifier)["State"]["Running"]
    api.remove(identifier)


def test_older_clients_are_told_another_type(api) -> None:
    identifier = api.run("sleep", "100")
    old = EngineApi(api.path, "/v1.41")
    with old.upgrade(f"/containers/{identifier}/attach", **BOTH) as stream:
        assert "application/vnd.docker.raw-stream" == stream.headers["Content-Type"]
    with old.stream("POST", f"/containers/{identifier}/attach?stream=1&stdout=1") as stream:
        assert 200 == stream.status
    api.remove(identifier)


def test_attach_with_logs_tells_what_was(api) -> None:
    identifier = api.run("sh", "-c", "echo before; read x; echo after", OpenStdin=True, StdinOnce=True)
    api.until(lambda: b"before" in api.logs(identifier))
    with api.upgrade(f"/containers/{identifier}/attach", logs=1, stdin=1, **BOTH) as stream:
        stream.send(b"\n")
        assert b"before\nafter\n" == of_stream(stream.all(), 1)
    api.remove(identifier)


@pytest.mark.parametrize("action", ["attach", "exec"])
def test_a_paused_container(api, action) -> None:
    identifier = api.run("sleep", "100")
    assert 204 == api.post(f"/containers/{identifier}/pause").status
    assert "paused" == api.inspect(identifier)["State"]["Status"]
    body = {"Cmd": ["true"]} if action == "exec" else None
    answer = api.post(f"/containers/{identifier}/{action}", body, **({} if body else BOTH))
    assert 409 == answer.status
    assert "is paused, unpause the container before" in answer.message
    assert "cannot start a paused container" in api.post(f"/containers/{identifier}/start").message
    api.remove(identifier)


# --- wait ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", ["next-exit", "removed", "not-running"])
def test_the_head_of_wait_comes_at_once(api, condition) -> None:
    identifier = api.create("sh", "-c", "exit 3", host={"AutoRemove": True})
    if condition == "not-running":
        api.remove(identifier)
        identifier = api.run("sh", "-c", "sleep 0.3; exit 3")
    with api.stream("POST", f"/containers/{identifier}/wait", condition=condition) as stream:
        assert 200 == stream.status
        if condition != "not-running":
            assert b"" == stream.rest
            assert 204 == api.post(f"/containers/{identifier}/start").status
        assert {"StatusCode": 3} == json.loads(stream.body())
    api.remove(identifier)


def test_wait_for_what_is_over_or_never_began(api) -> None:
    identifier = api.create("sh", "-c", "exit 4")
    assert {"StatusCode": 0} == api.post(f"/containers/{identifier}/wait").json()
    api.post(f"/containers/{identifier}/start")
    api.wait(identifier)
    assert {"StatusCode": 4} == api.post(f"/containers/{identifier}/wait").json()
    with api.stream("POST", f"/containers/{identifier}/wait", condition="removed") as stream:
        api.remove(identifier)
        assert {"StatusCode": 4} == json.loads(stream.body())


@pytest.mark.parametrize("condition", ["next-exit", "not-running", "removed"])
def test_removal_ends_every_wait(api, condition) -> None:
    identifier = api.run("sleep", "100")
    with api.stream("POST", f"/containers/{identifier}/wait", condition=condition) as stream:
        api.remove(identifier)
        assert 137 == json.loads(stream.body())["StatusCode"]


def test_clients_that_go_away_free_their_threads(api, engine) -> None:
    identifier = api.run("sleep", "100")
    most = 0
    # The server keeps threads that wait for connections, so what counts is that it needs no more the second time.
    for round_number in range(3):
        streams = _streams(api, identifier)
        assert engine.threads() >= len(streams)
        for stream in streams:
            stream.close()
        time.sleep(1.2)  # stats look for their client once a second
        most = most or engine.threads()
        assert engine.threads() <= most, round_number
    api.remove(identifier)


def _streams(api: EngineApi, identifier: str) -> list[Stream]:
    return [
        *(api.stream("POST", f"/containers/{identifier}/wait", condition="next-exit") for _ in range(5)),
        *(api.stream("GET", f"/containers/{identifier}/logs", stdout=1, follow=1) for _ in range(5)),
        *(api.stream("GET", f"/containers/{identifier}/stats") for _ in range(3)),
        *(api.stream("GET", "/events") for _ in range(5)),
        *(api.upgrade(f"/containers/{identifier}/attach", **BOTH) for _ in range(3)),
    ]


# --- exec ------------------------------------------------------------------------------------------------------------


def test_the_exit_code_is_known_when_the_stream_ends(api) -> None:
    identifier = api.run("sleep", "100")
    for number in range(100):
        assert (number, b"") == api.execute(identifier, "sh", "-c", f"exit {number}")
    api.remove(identifier)


@pytest.mark.parametrize(
    ("command", "code", "reason"),
    [
        ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
        ("/nosuch", 127, "no such file or directory"),
        ("/etc/group", 126, "permission denied"),
    ],
)
@pytest.mark.parametrize("terminal", [False, True])
def test_a_program_that_cannot_be_executed_is_told_in_the_stream(api, command, code, reason, terminal) -> None:
    identifier = api.run("sleep", "100")
    for _ in range(5):
        status, output = api.execute(identifier, command, Tty=terminal)
        assert code == status
        text = output.decode() if terminal else of_stream(output, 1).decode()
        assert text.startswith("OCI runtime exec failed: exec failed: unable to start container process: ")
        assert text.endswith(": unknown\r\n")
        assert reason in text
    api.remove(identifier)


def test_a_detached_exec_that_fails_answers_so(api) -> None:
    identifier = api.run("sleep", "100")
    execution = api.post(f"/containers/{identifier}/exec", {"Cmd": ["nosuch"]}).json()["Id"]
    answer = api.post(f"/exec/{execution}/start", {"Detach": True})
    assert 400 == answer.status
    assert "executable file not found in $PATH" in answer.message
    assert 127 == api.get(f"/exec/{execution}/json").json()["ExitCode"]
    api.remove(identifier)


def test_exec_with_input_a_user_and_variables(api) -> None:
    identifier = api.run("sleep", "100", Env=["A=1", "B=2"])
    body = {
        "Cmd": ["sh", "-c", "cat; id -u; echo $A $B; pwd"],
        "AttachStdin": True,
        "AttachStdout": True,
        "User": "33:44",
        "Env": ["B=3"],
        "WorkingDir": "/etc",
    }
    execution = api.post(f"/containers/{identifier}/exec", body).json()["Id"]
    with api.upgrade(f"/exec/{execution}/start", {}) as stream:
        stream.send(b"typed\n")
        stream.no_more()
        assert b"typed\n33\n1 3\n/etc\n" == of_stream(stream.all(), 1)
    api.remove(identifier)


def test_resize_waits_for_the_start(api) -> None:
    identifier = api.run("sleep", "100")
    body = {"Cmd": ["sh", "-c", "sleep 0.5; stty size"], "Tty": True, "AttachStdout": True}
    execution = api.post(f"/containers/{identifier}/exec", body).json()["Id"]
    answers = []
    asking = threading.Thread(target=lambda: answers.append(api.post(f"/exec/{execution}/resize", h=21, w=43)))
    asking.start()
    time.sleep(0.2)
    assert [] == answers
    with api.upgrade(f"/exec/{execution}/start", {"Tty": True}) as stream:
        assert b"21 43" in stream.all()
    asking.join(10)
    assert 200 == answers[0].status
    assert 409 == api.post(f"/exec/{execution}/resize", h=21, w=43).status
    for text, reason in (("high", "invalid syntax"), ("", "invalid syntax"), ("9" * 30, "value out of range")):
        refused = api.post(f"/exec/{execution}/resize", h=text, w=43)
        assert (400, f'strconv.Atoi: parsing "{text}": {reason}') == (refused.status, refused.message)
    api.remove(identifier)


# --- logs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_logs(api, driver) -> None:
    host = {"LogConfig": {"Type": driver, "Config": {}}}
    identifier = api.run("sh", "-c", "echo 1; sleep 0.1; echo 2 >&2; sleep 0.1; echo 3; sleep 0.1; printf 4", host=host)
    with api.stream("GET", f"/containers/{identifier}/logs", stdout=1, stderr=1, follow=1) as stream:
        assert b"1\n3\n4" == of_stream(stream.body(), 1)
    assert b"2\n" == of_stream(api.logs(identifier), 2)
    assert [(2, b"2\n")] == frames(api.logs(identifier, stdout=0))
    assert [b"3\n", b"4"] == [data for _, data in frames(api.logs(identifier, tail=2))]
    assert b"" == api.logs(identifier, tail=0)
    times = [data.split()[0].decode() for _, data in frames(api.logs(identifier, timestamps=1))]
    assert sorted(times) == times
    assert {len("2026-01-01T00:00:00.000000000Z")} == {len(time) for time in times}
    assert [b"3\n", b"4"] == [data for _, data in frames(api.logs(identifier, since=times[2]))]
    assert [b"1\n", b"2\n"] == [data for _, data in frames(api.logs(identifier, until=times[1]))]
    assert 400 == api.get(f"/containers/{identifier}/logs", stdout=1, since="yesterday").status
    api.remove(identifier)


def test_logs_with_details_and_none_at_all(api) -> None:
    log = {"Type": "json-file", "Config": {"labels": "a", "env": "E"}}
    identifier = api.run("echo", "x", host={"LogConfig": log}, Labels={"a": "b", "c": "d"}, Env=["E=f"])
    api.wait(identifier)
    assert [(1, b"E=f,a=b x\n")] == frames(api.logs(identifier, details=1))
    api.remove(identifier)
    identifier = api.run("echo", "x", host={"LogConfig": {"Type": "none"}})
    answer = api.get(f"/containers/{identifier}/logs", stdout=1)
    assert "configured logging driver does not support reading" == answer.message
    api.remove(identifier)


def test_a_log_is_turned_over_and_stays_readable(api) -> None:
    log = {"Type": "json-file", "Config": {"max-size": "10k", "max-file": "3"}}
    identifier = api.run("seq", "1", "500", host={"LogConfig": log})
    api.wait(identifier)
    lines = of_stream(api.logs(identifier), 1).decode().split()
    assert "500" == lines[-1]
    assert len(lines) < 500
    assert [str(number) for number in range(500 - len(lines) + 1, 501)] == lines
    api.remove(identifier)


# --- stats and events ------------------------------------------------------------------------------------------------


def test_stats(api) -> None:
    identifier = api.run("sh", "-c", "while :; do :; done")
    once = api.get(f"/containers/{identifier}/stats", stream=0).json()
    used, before = (once[name]["cpu_usage"]["total_usage"] for name in ("cpu_stats", "precpu_stats"))
    assert 0 < before < used
    assert 0 < once["precpu_stats"]["system_cpu_usage"] < once["cpu_stats"]["system_cpu_usage"]
    assert once["memory_stats"]["usage"] > 0
    assert once["pids_stats"]["current"] == 1
    began = time.monotonic()
    shot = api.get(f"/containers/{identifier}/stats", stream=0, one_shot=1).json()
    assert time.monotonic() - began < 0.9
    assert 0 == shot["precpu_stats"]["cpu_usage"]["total_usage"]
    assert 400 == api.get(f"/containers/{identifier}/stats", stream=1, one_shot=1).status
    with api.stream("GET", f"/containers/{identifier}/stats") as stream:
        data = b""
        while len(samples := [json.loads(line) for line in dechunked(data).splitlines()]) < 2:
            data += stream.some()
    assert samples[0]["read"] == samples[1]["preread"]
    api.remove(identifier)
    stopped = api.create("true")
    assert {} == api.get(f"/containers/{stopped}/stats", stream=0).json()["memory_stats"]
    api.remove(stopped)


def test_events_of_the_past_and_of_now(api) -> None:
    before = time.time()
    identifier = api.run("true", name="told", Labels={"kind": "event"})
    api.wait(identifier)
    middle = time.time()
    api.remove(identifier)

    def actions(since: float, until: float, **filters: list[str]) -> list[str]:
        answer = api.get("/events", since=f"{since:.9f}", until=f"{until:.9f}", filters=filters)
        return [one["Action"] for one in answer.lines()]

    after = time.time()
    assert ["create", "start", "die", "destroy"] == actions(before, after, container=["told"])
    assert ["create", "start", "die"] == actions(before, middle, container=[identifier[:12]])
    assert ["start", "destroy"] == actions(before, after, container=["told"], event=["start", "destroy"])
    assert ["create", "start", "die", "destroy"] == actions(before, after, label=["kind=event"])
    assert [] == actions(before, after, container=["told"], type=["image"])
    with api.stream("GET", "/events", filters={"event": ["rename"]}) as stream:
        identifier = api.create("true", name="first")
        api.post(f"/containers/{identifier}/rename", name="second")
        event = json.loads(dechunked(stream.until(b"\n", 5) + b""))
        assert ("rename", "/first") == (event["Action"], event["Actor"]["Attributes"]["oldName"])
    api.remove(identifier)


def test_bodies_in_chunks(api) -> None:
    body = json.dumps({"Image": api.image, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}).encode()
    pieces = iter([body[:10], body[10:11], body[11:]])
    answer = api.request("POST", "/containers/create", pieces, {"Content-Type": "application/json"})
    assert 201 == answer.status
    api.remove(answer.json()["Id"])


def test_frames_say_how_long_they_are(api) -> None:
    identifier = api.run("echo", "hi")
    api.wait(identifier)
    assert struct.pack(">BxxxI", 1, 3) + b"hi\n" == api.logs(identifier)
    api.remove(identifier)
