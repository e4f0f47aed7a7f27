"""What containers do by the API: states, limits, namespaces, files, restarts and health, on the real kernel."""

import base64
import dataclasses
import io
import itertools
import json
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_api import EngineApi, of_stream
from served_engine import IMAGE, ServedEngine, served

pytestmark = [pytest.mark.root]

TRAP = 'trap "echo got $1; exit 5" $1; echo ready; while :; do sleep 0.05; done'


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedEngine]:
    with served(tmp_path_factory.mktemp("containers")) as engine:
        yield engine


@pytest.fixture
def api(engine: ServedEngine) -> Iterator[EngineApi]:
    yield engine.api
    for one in engine.api.get("/containers/json", all=1).json():
        engine.api.remove(one["Id"])


def _shown(api: EngineApi, **filters: list[str]) -> set[str]:
    return {one["Names"][0][1:] for one in api.get("/containers/json", all=1, filters=filters).json()}


# --- requests that make no sense -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Cmd": 5}, "cannot unmarshal number into Go struct field Cmd"),
        ({"Env": "A=1"}, "cannot unmarshal string into Go struct field Env"),
        ({"Tty": "yes"}, "cannot unmarshal string into Go struct field Tty"),
        ({"Labels": ["a"]}, "cannot unmarshal array into Go struct field Labels"),
        ({"Labels": {"a": 1}}, "cannot unmarshal number into Go struct field Labels"),
        ({"Healthcheck": {"Test": "x"}}, "cannot unmarshal string into Go struct field Healthcheck.Test"),
        ({"Healthcheck": {"Interval": "1s"}}, "cannot unmarshal string into Go struct field Healthcheck.Interval"),
        ({"ExposedPorts": ["80"]}, "cannot unmarshal array into Go struct field ExposedPorts"),
        ({"HostConfig": []}, "HostConfig"),
        ({"HostConfig": {"Memory": "1g"}}, "cannot unmarshal string into Go struct field Memory"),
        ({"HostConfig": {"RestartPolicy": {"Name": 1}}}, "cannot unmarshal number into Go struct field RestartPolicy"),
        (
            {"HostConfig": {"LogConfig": {"Config": {"a": 1}}}},
            "cannot unmarshal number into Go struct field LogConfig.Config",
        ),
        ({"HostConfig": {"Ulimits": [{"Name": "nofile", "Soft": "x"}]}}, "cannot unmarshal string"),
        ({"HostConfig": {"Devices": [{"PathOnHost": 1}]}}, "cannot unmarshal number"),
        ({"HostConfig": {"PortBindings": {"80/tcp": "x"}}}, "cannot unmarshal string"),
        ({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": 80}]}}}, "cannot unmarshal number"),
        ({"HostConfig": {"ConsoleSize": [1, "x"]}}, "cannot unmarshal string into Go struct field ConsoleSize"),
        ({"HostConfig": {"Sysctls": {"a": 1}}}, "cannot unmarshal number into Go struct field Sysctls"),
        ({"HostConfig": {"Tmpfs": {"/a": 1}}}, "cannot unmarshal number into Go struct field Tmpfs"),
        ({"NetworkingConfig": {"EndpointsConfig": []}}, "EndpointsConfig"),
        ({"NetworkingConfig": {"EndpointsConfig": {"none": 5}}}, "EndpointsConfig"),
        ({"HostConfig": {"Memory": 1}}, "Minimum memory limit allowed is 6MB"),
        ({"HostConfig": {"NetworkMode": "container:"}}, "invalid container format container:<name|id>"),
        ({"StopSignal": "NOSUCH"}, "Invalid signal: NOSUCH"),
    ],
    ids=lambda value: json.dumps(value)[:50],
)
def test_what_is_refused(api, change, message) -> None:
    answer = api.post("/containers/create", {"Image": IMAGE, "Cmd": ["true"], **change})
    assert 400 == answer.status, answer.body
    assert message in answer.message
    assert [] == api.get("/containers/json", all=1).json()


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b'"x"', b"", b'{"Image": "bb"} trailing', b"\xff\xfe"])
def test_bodies_that_are_no_object(api, body) -> None:
    answer = api.request("POST", "/containers/create", body, {"Content-Type": "application/json"})
    assert 400 == answer.status
    assert answer.message


# --- signals and states ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("signal", "name"), [("10", "USR1"), ("SIGUSR1", "USR1"), ("usr2", "USR2")])
def test_kill_by_name_and_by_number(api, signal, name) -> None:
    identifier = api.run("sh", "-c", TRAP.replace("$1", name))
    api.until(lambda: b"ready" in api.logs(identifier))
    assert 204 == api.post(f"/containers/{identifier}/kill", signal=signal).status
    assert 5 == api.wait(identifier)
    assert f"ready\ngot {name}\n".encode() == of_stream(api.logs(identifier), 1)


@pytest.mark.parametrize("signal", ["NOSUCH", "0", "65", "-1", "9x"])
def test_kill_by_what_is_no_signal(api, signal) -> None:
    identifier = api.run("sleep", "100")
    answer = api.post(f"/containers/{identifier}/kill", signal=signal)
    assert (400, f"Invalid signal: {signal}") == (answer.status, answer.message)
    assert api.inspect(identifier)["State"]["Running"]


def test_stop_signal_and_time(api) -> None:
    identifier = api.run("sh", "-c", TRAP.replace("$1", "USR1"), StopSignal="SIGUSR1")
    api.until(lambda: b"ready" in api.logs(identifier))
    assert 204 == api.post(f"/containers/{identifier}/stop").status
    assert 5 == api.inspect(identifier)["State"]["ExitCode"]
    identifier = api.run("sh", "-c", 'trap "" TERM; echo ready; while :; do sleep 0.05; done', StopTimeout=1)
    api.until(lambda: b"ready" in api.logs(identifier))
    began = time.monotonic()
    assert 204 == api.post(f"/containers/{identifier}/stop").status
    assert 0.9 < time.monotonic() - began < 5
    assert 137 == api.inspect(identifier)["State"]["ExitCode"]


def test_names(api) -> None:
    first, second = api.create("true", name="first"), api.create("true", name="second")
    taken = api.post(f"/containers/{first}/rename", name="second")
    assert 409 == taken.status
    assert f'The container name "/second" is already in use by container "{second}"' in taken.message
    assert 400 == api.post(f"/containers/{first}/rename", name="-x").status
    assert 400 == api.post(f"/containers/{first}/rename", name="").status
    assert 204 == api.post(f"/containers/{first}/rename", name="third").status
    assert 204 == api.post(f"/containers/{second}/rename", name="first").status
    assert {"third", "first"} == _shown(api)
    assert 404 == api.get("/containers/second/json").status
    assert second == api.inspect(second[:8])["Id"]


def test_a_start_that_fails_removes_what_was_to_be_removed(api, engine) -> None:
    identifier = api.create("nosuch", host={"AutoRemove": True})
    answer = api.post(f"/containers/{identifier}/start")
    assert 400 == answer.status
    assert "executable file not found in $PATH" in answer.message
    api.until(lambda: api.get(f"/containers/{identifier}/json").status == 404)
    kept = api.create("nosuch")
    assert 400 == api.post(f"/containers/{kept}/start").status
    state = api.inspect(kept)["State"]
    assert ("created", 127) == (state["Status"], state["ExitCode"])
    assert "executable file not found" in state["Error"]
    assert [] == engine.cgroups()


# --- lists -----------------------------------------------------------------------------------------------------------


def test_every_filter_of_the_list(api) -> None:
    api.post("/volumes/create", {"Name": "vol"})
    api.post("/networks/create", {"Name": "net"})
    first = api.create("true", name="made", Labels={"a": "1"}, ExposedPorts={"80/tcp": {}})
    runs = api.run("sleep", "100", name="runs", Labels={"a": "2"}, host={"Binds": ["vol:/v"], "NetworkMode": "net"})
    ended = api.run("sh", "-c", "exit 3", name="ended", host={"PortBindings": {"81/udp": [{"HostPort": "8181"}]}})
    api.wait(ended)
    check = {"Test": ["CMD", "true"], "Interval": 100_000_000}
    healthy = api.run("sleep", "100", name="healthy", Healthcheck=check)
    api.until(lambda: api.inspect(healthy)["State"]["Health"]["Status"] == "healthy")
    everything = {"made", "runs", "ended", "healthy"}
    for filters, expected in (
        ({}, everything),
        ({"id": [first[:12]]}, {"made"}),
        ({"name": ["^/r"]}, {"runs"}),
        ({"name": ["e"]}, {"made", "ended", "healthy"}),
        ({"status": ["created", "exited"]}, {"made", "ended"}),
        ({"exited": ["3"]}, {"ended"}),
        ({"exited": ["0"]}, set()),
        ({"label": ["a"]}, {"made", "runs"}),
        ({"label": ["a=2"]}, {"runs"}),
        ({"label": ["a", "a=1"]}, {"made"}),
        ({"ancestor": [IMAGE]}, everything),
        ({"ancestor": ["nosuch"]}, set()),
        ({"before": ["runs"]}, {"made"}),
        ({"since": ["runs"]}, {"ended", "healthy"}),
        ({"volume": ["vol"]}, {"runs"}),
        ({"volume": ["/v"]}, {"runs"}),
        ({"network": ["net"]}, {"runs"}),
        ({"health": ["healthy"]}, {"healthy"}),
        ({"health": ["none"]}, {"made", "runs", "ended"}),
        ({"expose": ["80/tcp"]}, {"made"}),
        ({"expose": ["79-80"]}, {"made"}),
        ({"publish": ["81/udp"]}, {"ended"}),
        ({"is-task": ["false"]}, everything),
        ({"is-task": ["true"]}, set()),
    ):
        assert expected == _shown(api, **filters), filters
    for bad in ({"status": ["x"]}, {"health": ["x"]}, {"exited": ["x"]}, {"nosuch": ["x"]}, {"expose": ["x"]}):
        assert 400 == api.get("/containers/json", filters=bad).status, bad
    assert 404 == api.get("/containers/json", filters={"before": ["nosuch"]}).status
    assert ["healthy"] == [one["Names"][0][1:] for one in api.get("/containers/json", limit=1).json()]
    assert 2 == len(api.get("/containers/json").json())
    assert runs in {one["Id"] for one in api.get("/containers/json", size=1).json()}


def test_prune_filters(api) -> None:
    for name, labels in (("a", {"keep": "1"}), ("b", {"go": "1"}), ("c", {})):
        api.create("true", name=f"prune-{name}", Labels=labels)
    assert None is api.post("/containers/prune", filters={"until": ["1h"]}).json()["ContainersDeleted"]
    assert 1 == len(api.post("/containers/prune", filters={"label": ["go"]}).json()["ContainersDeleted"])
    assert 1 == len(api.post("/containers/prune", filters={"label!": ["keep"]}).json()["ContainersDeleted"])
    assert {"prune-a"} == _shown(api)
    assert 400 == api.post("/containers/prune", filters={"nosuch": ["x"]}).status


# --- files -----------------------------------------------------------------------------------------------------------


def _status(api: EngineApi, identifier: str, path: str) -> dict[str, object]:
    answer = api.request("HEAD", f"/containers/{identifier}/archive", path=path)
    assert 200 == answer.status, path
    return json.loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))


def _members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


def _archive(*members: tuple[str, bytes | str | None]) -> bytes:
    """A tar: bytes are a file's, None means a directory, text a link's target."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            data = content if isinstance(content, bytes) else b""
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


LINKS = (
    "mkdir /d; echo hi > /d/f; ln -s /d/f /link; ln -s ../../../../etc/hostname /out; ln -s /d /dl; ln -s loop /loop"
)


@pytest.mark.parametrize("running", [True, False])
def test_archives_links_and_slashes(api, running) -> None:
    identifier = api.run("sh", "-c", f"{LINKS}; echo inside > /etc/hostname; {'sleep 100' if running else ''}")
    api.until(lambda: api.request("HEAD", f"/containers/{identifier}/archive", path="/loop").status == 200)
    if not running:
        api.wait(identifier)
    of = f"/containers/{identifier}/archive"
    assert ("link", "/d/f", True) == (
        (found := _status(api, identifier, "/link"))["name"],
        found["linkTarget"],
        bool(int(found["mode"]) & 1 << 27),
    )
    assert "/etc/hostname" == _status(api, identifier, "/out")["linkTarget"]
    assert {"link"} == set(_members(api.get(of, path="/link").body))
    assert tarfile.SYMTYPE == _members(api.get(of, path="/link").body)["link"].type
    assert {"d", "d/f"} == set(_members(api.get(of, path="/dl/").body)) or {"dl", "dl/f"} == set(
        _members(api.get(of, path="/dl/").body)
    )
    assert {"d", "d/f"} == set(_members(api.get(of, path="/d").body))
    assert 404 == api.get(of, path="/loop/x").status
    # A link out of the root leads to the container's own files, however many steps up it takes.
    assert 200 == api.request("PUT", of, _archive(("f2", b"new")), path="/dl").status
    assert {"d", "d/f", "d/f2"} == set(_members(api.get(of, path="/d").body))
    assert 400 == api.request("PUT", of, _archive(("x", b"")), path="/d/f").status
    assert 404 == api.request("PUT", of, _archive(("x", b"")), path="/nosuch").status
    climbing = api.request("PUT", of, _archive(("../../../../climbed", b"x")), path="/d")
    assert climbing.status in (200, 400)
    assert not Path("/climbed").exists()


def test_directories_and_files_in_each_others_place(api) -> None:
    identifier = api.create("true")
    of = f"/containers/{identifier}/archive"
    assert 200 == api.request("PUT", of, _archive(("d", None), ("d/f", b"1"), ("g", b"2")), path="/root").status
    kept = api.request("PUT", of, _archive(("d", b"a file now")), path="/root", noOverwriteDirNonDir=1)
    assert 400 == kept.status
    kept = api.request("PUT", of, _archive(("g", None)), path="/root", noOverwriteDirNonDir=1)
    assert 400 == kept.status
    assert {"d", "d/f"} == set(_members(api.get(of, path="/root/d").body))


def test_a_read_only_root_and_its_volumes(api) -> None:
    identifier = api.run("sleep", "100", host={"ReadonlyRootfs": True, "Binds": ["rov:/v"]})
    of = f"/containers/{identifier}/archive"
    refused = api.request("PUT", of, _archive(("x", b"1")), path="/root")
    assert (403, "container rootfs is marked read-only") == (refused.status, refused.message)
    assert 200 == api.request("PUT", of, _archive(("x", b"1")), path="/v").status
    assert {"x"} == set(_members(api.get(of, path="/v/x").body))
    api.post(f"/containers/{identifier}/stop", t=0)
    assert 200 == api.request("PUT", of, _archive(("y", b"1")), path="/v").status
    assert {"v", "v/x", "v/y"} == set(_members(api.get(of, path="/v").body))
    mountpoint = Path(api.get("/volumes/rov").json()["Mountpoint"])
    assert ["x", "y"] == sorted(path.name for path in mountpoint.iterdir())


def test_export_import_commit_and_changes(api) -> None:
    identifier = api.run("sh", "-c", "echo new > /new; rm /etc/group; mkfifo /fifo; sleep 100")
    api.until(lambda: b"/fifo" in api.get(f"/containers/{identifier}/changes").body)
    changes = {(one["Path"], one["Kind"]) for one in api.get(f"/containers/{identifier}/changes").json()}
    assert {("/new", 1), ("/etc", 0), ("/etc/group", 2), ("/fifo", 1)} == changes
    exported = api.get(f"/containers/{identifier}/export").body
    imported = api.post("/images/create", exported, fromSrc="-", repo="exported", changes='CMD ["cat","/new"]')
    assert 200 == imported.status
    assert (0, "new\n") == api.output(Image="exported", Cmd=None)
    committed = api.post(
        "/commit",
        None,
        container=identifier,
        repo="committed",
        tag="t",
        comment="c",
        author="me",
        changes="ENV A=b\nCMD env",
    )
    assert 201 == committed.status
    assert not api.inspect(identifier)["State"]["Paused"]
    image = api.get("/images/committed:t/json").json()
    assert ("c", "me", ["/bin/sh", "-c", "env"]) == (image["Comment"], image["Author"], image["Config"]["Cmd"])
    _, output = api.output(Image="committed:t", Cmd=None)
    assert "A=b" in output.split()
    bad = api.post("/commit", None, container=identifier, changes="RUN true")
    assert 400 == bad.status
    api.remove(identifier)
    for name in ("exported", "committed:t"):
        assert 200 == api.delete(f"/images/{name}").status


# --- what the kernel is asked for ------------------------------------------------------------------------------------


def test_update_is_seen_in_the_cgroup(api) -> None:
    identifier = api.run("sleep", "100", host={"Memory": 64 << 20})
    pid = api.inspect(identifier)["State"]["Pid"]
    group = next(
        Path(f"/sys/fs/cgroup/memory{line.split(':')[2]}")
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        if "memory" in line.split(":")[1].split(",") or line.startswith("0::")
    )
    limit = group / "memory.limit_in_bytes"
    limit = limit if limit.exists() else Path(f"{str(group).replace('/memory/', '/')}/memory.max")
    assert 64 << 20 == int(limit.read_text())
    body = {"Memory": 32 << 20, "MemorySwap": 64 << 20, "CpuShares": 512, "PidsLimit": 20}
    assert {"Warnings": []} == api.post(f"/containers/{identifier}/update", body).json()
    assert 32 << 20 == int(limit.read_text())
    assert 512 == api.inspect(identifier)["HostConfig"]["CpuShares"]
    refused = api.post(f"/containers/{identifier}/update", {"Memory": 1 << 20})
    assert refused.status >= 400
    assert 32 << 20 == int(limit.read_text())
    api.post(f"/containers/{identifier}/update", {"RestartPolicy": {"Name": "always"}})
    assert "always" == api.inspect(identifier)["HostConfig"]["RestartPolicy"]["Name"]


def test_out_of_memory(api) -> None:
    host = {"Memory": 16 << 20, "MemorySwap": 16 << 20}
    identifier = api.run("sh", "-c", "head -c 100000000 /dev/zero | tail", host=host)
    api.wait(identifier)
    assert api.inspect(identifier)["State"]["OOMKilled"]


@pytest.mark.parametrize(
    ("script", "host", "expected"),
    [
        ("cat /proc/1/comm; echo $$", {"Init": True}, None),
        ("ulimit -n; ulimit -Hn", {"Ulimits": [{"Name": "nofile", "Soft": 99, "Hard": 200}]}, "99\n200\n"),
        ("cat /proc/sys/net/ipv4/ip_forward", {"Sysctls": {"net.ipv4.ip_forward": "0"}}, "0\n"),
        (
            "[ -c /dev/mine ] && echo yes",
            {"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/mine"}]},
            "yes\n",
        ),
        ("ls /sys/class/net", {}, "lo\n"),
        ("id -G", {"GroupAdd": ["1234"]}, "0 1234\n"),
        ("touch /x || echo no", {"ReadonlyRootfs": True}, "no\n"),
        ("df -k /t | tail -1 | awk '{print $2}'", {"Tmpfs": {"/t": "size=1m"}}, "1024\n"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_settings(api, script, host, expected) -> None:
    status, output = api.output("sh", "-c", f"({script}) 2>/dev/null", host=host)
    assert 0 == status
    if expected is None:
        assert output.splitlines()[0] != "sh"
        assert output.splitlines()[1] != "1"
    else:
        assert expected == output


def test_a_numeric_user_is_in_its_own_group(api) -> None:
    assert "groups=33" in api.output("id", User="33:33")[1]
    identifier = api.run("sleep", "100", User="33:33")
    assert b"33\n" == of_stream(api.execute(identifier, "id", "-G")[1], 1)


def test_namespaces_of_the_host_and_of_another_container(api) -> None:
    own = api.run("sleep", "100", Hostname="first", host={"IpcMode": "shareable"})
    pid = api.inspect(own)["State"]["Pid"]

    def of(process: int | str, kind: str) -> str:
        return str(Path(f"/proc/{process}/ns/{kind}").readlink())

    for kind, field, mode in (("pid", "PidMode", "host"), ("ipc", "IpcMode", "host"), ("uts", "UTSMode", "host")):
        other = api.run("sleep", "100", host={field: mode})
        assert of("self", kind) == of(api.inspect(other)["State"]["Pid"], kind)
    for kind, field in (("pid", "PidMode"), ("ipc", "IpcMode"), ("net", "NetworkMode")):
        other = api.run("sleep", "100", host={field: f"container:{own}"})
        assert of(pid, kind) == of(api.inspect(other)["State"]["Pid"], kind)
        assert of("self", kind) != of(pid, kind)
    alone = api.run("sleep", "100")
    kept = api.create("true", host={"IpcMode": f"container:{alone}"})
    assert f"can't join IPC of container {alone}: non-shareable IPC" in api.post(f"/containers/{kept}/start").message
    missing = api.post("/containers/create", {"Image": IMAGE, "HostConfig": {"PidMode": "container:nosuch"}})
    assert (400, "No such container: nosuch") == (missing.status, missing.message)
    api.post(f"/containers/{own}/stop", t=0)
    late = api.create("true", host={"NetworkMode": f"container:{own}"})
    refused = api.post(f"/containers/{late}/start")
    assert 409 == refused.status
    assert "non running container" in refused.message


def test_volumes_of_another_container(api) -> None:
    first = api.create("true", host={"Binds": ["shared:/v"]})
    assert (0, "") == api.output("sh", "-c", "echo x > /v/f", host={"VolumesFrom": [first]})
    _, output = api.output(
        "sh", "-c", "cat /v/f; touch /v/g 2>/dev/null || echo ro", host={"VolumesFrom": [f"{first}:ro"]}
    )
    assert "x\nro\n" == output


def test_links(api) -> None:
    other = api.run(
        "sleep", "100", name="db", host={"NetworkMode": "bridge"}, Env=["KEY=v"], ExposedPorts={"5432/tcp": {}}
    )
    address = api.inspect(other)["NetworkSettings"]["IPAddress"]
    host = {"NetworkMode": "bridge", "Links": ["db:store"]}
    _, output = api.output("sh", "-c", "env; cat /etc/hosts; ping -c 1 -W 2 store", name="app", host=host)
    assert f"STORE_PORT_5432_TCP=tcp://{address}:5432" in output
    assert "STORE_ENV_KEY=v" in output
    assert any(line.split()[0] == address and "store" in line.split() for line in output.splitlines() if line)
    assert "1 packets received" in output


def test_top(api) -> None:
    identifier = api.run("sh", "-c", "sleep 77 & sleep 78; true")
    api.until(lambda: len(api.get(f"/containers/{identifier}/top").json()["Processes"]) == 3)
    found = api.get(f"/containers/{identifier}/top", ps_args="-o pid,args").json()
    assert ["PID", "COMMAND"] == found["Titles"]
    assert {"sleep 77", "sleep 78"} <= {row[1] for row in found["Processes"]}
    assert api.get(f"/containers/{identifier}/top", ps_args="-o comm").status >= 400


# --- what Docker does too --------------------------------------------------------------------------------------------


def test_no_device_made_in_a_container_can_be_opened_by_any_way(api, tmp_path: Path) -> None:
    (tmp_path / "nested").mkdir()
    binds = [f"{tmp_path}:/host", f"{tmp_path / 'nested'}:/host/nested", "nodes:/volume"]
    identifier = api.run("sleep", "100", host={"Binds": binds})
    places = ("/k", "/host/k", "/host/nested/k", "/volume/k", "/tmp/k")
    made = "; ".join(f"mknod {place} c 1 11" for place in places)
    assert (0, b"") == api.execute(identifier, "sh", "-c", made)
    opened = "; ".join(f"(echo x > {place}) && echo opened; cat {place} && echo read" for place in places)
    _, output = api.execute(identifier, "sh", "-c", opened)
    assert (2 * len(places), False) == (output.count(b"Operation not permitted"), b"opened" in output)
    # Root of such a program may mount: then too what guards the node is the cgroup.
    _, output = api.execute(identifier, "sh", "-c", "mknod /l b 7 0; mount /l /mnt; (cat /l)", Privileged=True)
    assert b"can't open '/l': Operation not permitted" in output
    api.remove(identifier)
    api.delete("/volumes/nodes")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Cmd", ["echo", "a\0b"]),
        ("Entrypoint", ["ec\0ho"]),
        ("Env", ["A=\0b"]),
        ("WorkingDir", "/a\0b"),
        ("User", "a\0b"),
        ("Hostname", "a\0b"),
        ("Domainname", "a\0b"),
    ],
)
def test_a_nul_is_refused_before_anything_is_made(api, field: str, value: object) -> None:
    before = api.get("/containers/json", all=1).json()
    answer = api.post("/containers/create", {"Image": IMAGE, "Cmd": ["true"], field: value})
    assert (400, True) == (answer.status, answer.message.startswith(f"{field} can't contain a NUL byte: "))
    assert before == api.get("/containers/json", all=1).json()
    if field in ("Cmd", "Env", "WorkingDir", "User"):
        identifier = api.run("sleep", "100")
        answer = api.post(f"/containers/{identifier}/exec", {"Cmd": ["true"], field: value})
        assert (400, True) == (answer.status, answer.message.startswith(f"{field} can't contain a NUL byte: "))
        assert api.inspect(identifier)["ExecIDs"] is None


def test_a_name_in_another_encoding_is_copied(api) -> None:
    identifier = api.run("sh", "-c", "mkdir /d; echo there > /d/$(printf 'caf\\351'); sleep 100")
    name = b"caf\xe9"
    path = f"/containers/{identifier}/archive?path=/d/caf%E9"
    api.until(lambda: api.request("HEAD", path).status == 200)
    status = json.loads(base64.b64decode(api.request("HEAD", path).headers["X-Docker-Container-Path-Stat"]))
    assert ("caf\ufffd", 6) == (status["name"], status["size"])
    with tarfile.open(fileobj=io.BytesIO(api.get(path).body)) as archive:
        (member,) = archive.getmembers()
        assert (name, b"there\n") == (os.fsencode(member.name), archive.extractfile(member).read())
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(os.fsdecode(b"na\xefve"))
        member.size = 3
        archive.addfile(member, io.BytesIO(b"new"))
    api.execute(identifier, "sh", "-c", "mkdir /$(printf '\\344')")
    assert 200 == api.request("PUT", f"/containers/{identifier}/archive?path=/%E4", buffer.getvalue()).status
    assert b"new" == of_stream(
        api.execute(identifier, "sh", "-c", "cat /$(printf '\\344')/$(printf 'na\\357ve')")[1], 1
    )
    assert 404 == api.get(f"/containers/{identifier}/archive?path=/d/nosuch%E9").status


def test_what_is_made_up_in_a_running_container_is_not_copied(api) -> None:
    script = (
        "mkdir /etc/mine; mount -t tmpfs none /mnt; echo secret > /mnt/f; echo kept > /v/f; echo own > /f; sleep 100"
    )
    host = {"Binds": ["copied:/v"], "Tmpfs": {"/t": ""}, "CapAdd": ["SYS_ADMIN"]}
    identifier = api.run("sh", "-c", script, host=host, Hostname="named")
    of = f"/containers/{identifier}/archive"
    api.until(lambda: api.get(of, path="/f").status == 200)
    for path in ("/proc/version", "/proc/1/environ", "/sys/kernel", "/dev/null", "/mnt/f", "/dev/pts/ptmx"):
        assert 404 == api.get(of, path=path).status, path
    assert b"kept\n" in api.get(of, path="/v/f").body
    assert b"named\n" in api.get(of, path="/etc/hostname").body
    assert b"127.0.0.1\tlocalhost" in api.get(of, path="/etc/hosts").body
    # Docker's way too: it is put into the root file system, where the container's /proc hides it.
    assert 200 == api.request("PUT", of, _archive(("x", b"1")), path="/proc").status
    assert b"No such file" in api.execute(identifier, "cat", "/proc/x")[1]
    assert 404 == api.request("PUT", of, _archive(("x", b"1")), path="/proc/sys/kernel").status
    assert 200 == api.request("PUT", of, _archive(("x", b"1")), path="/v").status
    assert b"1" == of_stream(api.execute(identifier, "cat", "/v/x")[1], 1)
    before = Path("/proc/self/mountinfo").read_text()
    assert identifier not in before
    api.remove(identifier)
    api.delete("/volumes/copied")


def test_a_mount_that_passes_nothing_on_is_refused(api) -> None:
    for mode, what in (("rshared", "a shared"), ("slave", "a shared or slave")):
        identifier = api.create("true", host={"Binds": [f"/proc/sys:/x:{mode}"]})
        answer = api.post(f"/containers/{identifier}/start")
        assert (500, f"path /proc/sys is mounted on /proc but it is not {what} mount") == (
            answer.status,
            answer.message,
        )
        assert 128 == api.inspect(identifier)["State"]["ExitCode"]


def test_cpu_time_of_real_time(api) -> None:
    kept = {"CpuRealtimePeriod": 500_000, "CpuRealtimeRuntime": 0}
    identifier = api.run("sleep", "100", host=kept)
    lines = Path(f"/proc/{api.inspect(identifier)['State']['Pid']}/cgroup").read_text().splitlines()
    group = next(
        Path(f"/sys/fs/cgroup/cpu{line.split(':')[2]}") for line in lines if "cpu" in line.split(":")[1].split(",")
    )
    if not (group / "cpu.rt_period_us").exists():
        pytest.skip("this kernel has no real-time scheduling of groups")
    assert "500000" == (group / "cpu.rt_period_us").read_text().strip()
    refused = api.create("true", host={"CpuRealtimeRuntime": 1000})
    answer = api.post(f"/containers/{refused}/start")
    assert (500, True) == (answer.status, "cpu.rt_runtime_us: invalid argument" in answer.message)
    assert 'unable to apply cgroup configuration: failed to write "1000": write /' in answer.message
    above = {"CpuRealtimePeriod": 1000, "CpuRealtimeRuntime": 2000}
    answer = api.post("/containers/create", {"Image": IMAGE, "HostConfig": above})
    assert (400, "cpu real-time runtime cannot be higher than cpu real-time period") == (answer.status, answer.message)


def test_warnings_of_what_does_harm_or_nothing(api) -> None:
    memory = (
        "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running "
        "out of resources."
    )
    ports = "Published ports are discarded when using host network mode"
    kernel = "Specifying a kernel memory limit is deprecated and will be removed in a future release."
    bindings = {"80/tcp": [{"HostPort": "80"}]}
    older = dataclasses.replace(api, version="/v1.41")
    for host, through, expected in (
        ({"OomKillDisable": True}, api, [memory]),
        ({"OomKillDisable": True, "Memory": 1 << 25}, api, []),
        ({"NetworkMode": "host", "PortBindings": bindings, "OomKillDisable": True}, api, [memory, ports]),
        ({"PortBindings": bindings}, api, []),
        ({"KernelMemory": 1 << 25}, api, []),  # of an API that has it no more
        ({"KernelMemory": 1 << 25, "OomKillDisable": True}, older, [kernel, memory]),
        ({"KernelMemory": -1}, older, []),
    ):
        answer = through.post("/containers/create", {"Image": IMAGE, "Cmd": ["true"], "HostConfig": host})
        assert (201, expected) == (answer.status, answer.json()["Warnings"]), host
        identifier = answer.json()["Id"]
        assert "KernelMemory" not in api.inspect(identifier)["HostConfig"]
    update = {"CpuShares": 100, "KernelMemory": 1 << 25}
    assert [] == api.post(f"/containers/{identifier}/update", update).json()["Warnings"]
    assert [kernel] == older.post(f"/containers/{identifier}/update", {"KernelMemory": 1 << 25}).json()["Warnings"]
    body = {"Image": IMAGE, "HostConfig": {"KernelMemory": 1 << 21}}
    assert "Minimum kernel memory limit allowed is 6MB" == older.post("/containers/create", body).message


def test_a_sysctl_that_is_not_there_counts_as_not_found(api) -> None:
    for name, value, status, why in (
        ("net.nosuch", "1", 127, "open /proc/sys/net/nosuch: no such file or directory"),
        ("net.ipv4.ip_default_ttl", "abc", 125, "write /proc/sys/net/ipv4/ip_default_ttl: invalid argument"),
    ):
        identifier = api.create("true", host={"Sysctls": {name: value}})
        answer = api.post(f"/containers/{identifier}/start")
        assert f"unable to start container process: error during container init: {why}" in answer.message
        assert status == api.inspect(identifier)["State"]["ExitCode"]


# --- health and restarts ---------------------------------------------------------------------------------------------


def test_health_goes_through_its_states(api) -> None:
    check = {"Test": ["CMD-SHELL", "test -e /ok"], "Interval": 100_000_000, "Retries": 2}
    identifier = api.run("sh", "-c", "sleep 1; touch /ok; sleep 1; rm /ok; sleep 100", Healthcheck=check)
    health = lambda: api.inspect(identifier)["State"]["Health"]  # noqa: E731
    assert "starting" == health()["Status"]
    for expected in ("unhealthy", "healthy", "unhealthy"):
        api.until(lambda wanted=expected: health()["Status"] == wanted)
    assert 2 <= health()["FailingStreak"]
    assert 1 <= len(health()["Log"]) <= 5
    assert 1 == health()["Log"][-1]["ExitCode"]


def test_a_health_check_that_takes_too_long_and_none_at_all(api) -> None:
    check = {"Test": ["CMD", "sleep", "50"], "Interval": 100_000_000, "Timeout": 200_000_000, "Retries": 1}
    slow = api.run("sleep", "100", Healthcheck=check)
    api.until(lambda: api.inspect(slow)["State"]["Health"]["Status"] == "unhealthy")
    log = api.inspect(slow)["State"]["Health"]["Log"][-1]
    assert (-1, True) == (log["ExitCode"], "exceeded timeout" in log["Output"])
    api.until(lambda: len(api.get(f"/containers/{slow}/top").json()["Processes"]) <= 2)
    none = api.run("sleep", "100", Healthcheck={"Test": ["NONE"]})
    assert "Health" not in api.inspect(none)["State"]


def test_a_health_check_is_told_as_any_exec(api) -> None:
    identifier = api.create("sleep", "100", Healthcheck={"Test": ["CMD", "true"], "Interval": 100_000_000})
    since = time.time()
    api.post(f"/containers/{identifier}/start")
    api.until(lambda: api.inspect(identifier)["State"]["Health"]["Status"] == "healthy")
    events = api.get("/events", since=since, until=int(time.time()) + 1, filters={"container": [identifier]}).lines()
    told = [(one["Action"], one["Actor"]["Attributes"]) for one in events if one["Action"] != "start"]
    first = told[0][1]["execID"]
    assert ["exec_create: true", "exec_start: true", "exec_die"] == [
        action for action, about in told if about.get("execID") == first
    ]
    assert ("health_status: healthy", "0") == (told[3][0], told[2][1]["exitCode"])


def test_restarts_come_ever_later_and_come_to_an_end(api) -> None:
    policy = {"Name": "on-failure", "MaximumRetryCount": 3}
    identifier = api.run("sh", "-c", "date +%s.%N >/dev/null; echo run; exit 3", host={"RestartPolicy": policy})
    api.until(lambda: api.inspect(identifier)["State"]["Status"] == "exited")
    shown = api.inspect(identifier)
    assert (3, 3) == (shown["RestartCount"], shown["State"]["ExitCode"])
    lines = api.logs(identifier, timestamps=1)
    assert 4 == of_stream(lines, 1).count(b"run")
    since = shown["Created"]
    events = api.get("/events", since=since, until=int(time.time()) + 1, filters={"container": [identifier]}).lines()
    starts = [one["timeNano"] for one in events if one["Action"] == "start"]
    waits = [later - earlier for earlier, later in itertools.pairwise(starts)]
    # Each wait can be longer on a busy machine, but none shorter. (How long is meant, `test_restarting` asks.)
    assert [True] * 3 == [wait >= least * 1_000_000 for wait, least in zip(waits, (100, 200, 400), strict=True)]


def test_a_stopped_container_is_not_restarted(api) -> None:
    identifier = api.run("sleep", "100", host={"RestartPolicy": {"Name": "always"}})
    api.post(f"/containers/{identifier}/stop", t=0)
    time.sleep(0.5)
    assert "exited" == api.inspect(identifier)["State"]["Status"]
    again = api.run("false", host={"RestartPolicy": {"Name": "always"}})
    api.until(lambda: api.inspect(again)["RestartCount"] >= 1)
    api.until(lambda: api.inspect(again)["State"]["Status"] == "restarting")
    assert 409 == api.post(f"/containers/{again}/exec", {"Cmd": ["true"]}).status
    assert 204 == api.post(f"/containers/{again}/stop", t=0).status
    assert "exited" == api.inspect(again)["State"]["Status"]


def test_a_profile_is_what_the_client_sends_and_no_file_of_this_machine(api) -> None:
    identifier = api.create("true", host={"SecurityOpt": ["seccomp=/etc/passwd"]})
    refused = api.post(f"/containers/{identifier}/start")
    assert 400 == refused.status
    assert "Decoding seccomp profile failed: invalid character '/'" in refused.message
    api.remove(identifier)
    assert (0, "Seccomp:\t2\n") == api.output(
        "grep", "^Seccomp:", "/proc/self/status", host={"SecurityOpt": ["seccomp=builtin"]}
    )
