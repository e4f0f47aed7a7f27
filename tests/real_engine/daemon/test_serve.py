"""`onggi engine serve`: what it says and does when it begins and ends, and what it refuses."""

import importlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest

from classroom.cli import main
from classroom.commands.engine_serve import address_pool
from real_engine.daemon.app import ROUTE_MODULES, Daemon, engine_version
from real_engine.daemon.config import AddressPool, DaemonConfig
from real_engine.daemon.serving import Endpoint
from real_engine.errors import Conflict, InvalidParameter


@pytest.mark.parametrize("name", ROUTE_MODULES)
def test_every_part_of_the_api_is_there(name):
    assert callable(importlib.import_module(f"real_engine.daemon.routes.{name}").register)


@pytest.mark.root
def test_it_tells_when_it_is_ready_and_ends_in_order(serve):
    served = serve()
    assert f"onggi engine: listening on {served.api.host} (API 1.43)\n" in served.log.read_text()
    status = os.stat(served.api.socket_path)
    assert (True, 0o660) == (stat.S_ISSOCK(status.st_mode), stat.S_IMODE(status.st_mode))
    assert 0o700 == stat.S_IMODE(served.data_root.stat().st_mode)
    assert b"OK" == served.api.get("/_ping").body
    assert 0 == served.end(signal.SIGTERM)
    assert not served.api.socket_path.exists()


@pytest.mark.root
def test_an_engine_keeps_its_id(serve):
    first = serve()
    identity = first.api.get("/info").json()["ID"]
    assert identity == json.loads((first.data_root / "engine.json").read_text())["id"]
    first.end()
    assert identity == serve().api.get("/info").json()["ID"]


@pytest.mark.root
def test_an_interrupt_ends_it_too_and_a_hangup_does_not(serve):
    served = serve()
    served.process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert b"OK" == served.api.get("/_ping").body
    assert "SIGHUP" in served.log.read_text()
    assert 0 == served.end(signal.SIGINT)


@pytest.mark.root
def test_ending_ends_streams_and_they_end_whole(serve):
    served = serve()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(served.api.get("/events")))
    thread.start()
    while served.api.get("/info").json()["NEventsListener"] == 0:
        time.sleep(0.01)
    began = time.monotonic()
    assert 0 == served.end()
    thread.join(5)
    assert (True, [(200, b"")]) == (time.monotonic() - began < 4, [(one.status, one.body) for one in answers])


@pytest.mark.root
def test_a_second_daemon_on_a_data_root_is_refused_in_one_line(serve, short_path, capsys):
    served = serve()
    assert 2 == main(["engine", "serve", "--data-root", str(served.data_root), "-H", f"unix://{short_path}/other"])
    error = capsys.readouterr().err
    assert (
        f"onggi: the data root {served.data_root} is used by another daemon (process {served.process.pid})\n" == error
    )
    assert not (short_path / "other").exists()
    assert b"OK" == served.api.get("/_ping").body


@pytest.mark.root
def test_a_socket_that_is_served_is_left_alone(serve, short_path, capsys):
    served = serve()
    assert 2 == main(["engine", "serve", "--data-root", str(short_path / "other"), "-H", served.api.host])
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"onggi: cannot listen on {served.api.host}: another server answers there" == error
    assert b"OK" == served.api.get("/_ping").body


@pytest.mark.root
def test_a_killed_daemon_is_followed_by_another(serve, short_path):
    served = serve()
    served.end(signal.SIGKILL)
    assert served.api.socket_path.exists()
    again = serve("-H", served.api.host, data_root=served.data_root)
    assert f"listening on {again.api.host}, {served.api.host} (API" in again.log.read_text()
    assert b"OK" == served.api.get("/_ping").body == again.api.get("/_ping").body


@pytest.mark.root
def test_a_trace_is_written_without_secrets(serve, tmp_path):
    path = tmp_path / "trace.jsonl"
    served = serve("--trace", str(path))
    served.api.get("/_ping")
    served.api.request("GET", "/version", headers={"X-Registry-Auth": "hunter2"})
    served.end()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [("/v1.43/_ping", 200), ("/v1.43/version", 200)] == [(one["target"], one["status"]) for one in records]
    assert "hunter2" not in path.read_text()


@pytest.mark.root
def test_idle_costs_little(serve):
    """Nothing runs while nothing is asked: no polling."""
    served = serve()
    time.sleep(0.5)

    def ticks():
        fields = Path(f"/proc/{served.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(1.0)
    assert ticks() - before <= 2


# --- what is refused: one line, status 2, nothing left ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-H", "tcp://127.0.0.1:0"], "TLS on both sides"),
        (["-H", "tcp://127.0.0.1:0", "--tlsverify"], "--tlsverify needs --tlscacert, --tlscert, --tlskey too"),
        (["--tlscert", "x"], "no use without --tlsverify"),
        (["--tlsverify", "--tlscacert", "/a", "--tlscert", "/b", "--tlskey", "/c"], "cannot read /b"),
        (["-H", "ftp://x"], "cannot listen on `ftp://x`: write unix://PATH or tcp://HOST:PORT"),
        (["-H", "/run/x.sock"], "cannot listen on `/run/x.sock`"),
        (["-H", "tcp://host:99999"], "a port from 0 to 65535"),
        (["-H", "tcp://"], "write tcp://HOST:PORT"),
        (["-H", "unix:///" + "x" * 120], "at most 107 bytes"),
    ],
)
def test_options_that_can_not_be_meant(tmp_path, capsys, arguments, message):
    assert 2 == main(["engine", "serve", "--data-root", str(tmp_path / "root"), *arguments])
    error = capsys.readouterr().err
    assert (1, True) == (len(error.splitlines()), message in error)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--default-address-pool", "10.0.0.0/16"],
        ["--default-address-pool", "base=10.0.0.0/16,size=8"],
        ["--default-address-pool", "base=10.0.0.1/16,size=24"],
        ["--mtu", "20"],
        ["--mtu", "big"],
        ["--log-level", "loud"],
    ],
)
def test_values_that_are_none(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["engine", "serve", *arguments])
    assert 2 == caught.value.code
    assert "error: argument" in capsys.readouterr().err


def test_a_data_root_that_can_not_be_used(tmp_path, capsys):
    (tmp_path / "file").touch()
    arguments = ["engine", "serve", "--data-root", str(tmp_path / "file/root"), "-H", f"unix://{tmp_path}/s"]
    assert 2 == main(arguments)
    assert f"onggi: cannot keep the engine's data in {tmp_path}/file/root: Not a directory" in capsys.readouterr().err


@pytest.mark.root
@pytest.mark.root
def test_a_data_root_without_room(tmp_path, capsys):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], check=True)
    try:
        with pytest.raises(OSError, match="No space"), open(tmp_path / "filler", "wb") as file:
            file.write(b"x" * 100_000)
        assert 2 == main(["engine", "serve", "--data-root", f"{tmp_path}/root", "-H", f"unix://{tmp_path}/s"])
        message = f"cannot keep the engine's data in {tmp_path}/root: No space left on device; name another"
        assert f"onggi: {message}\n" == capsys.readouterr().err
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.root
def test_a_deep_tree_of_somebody_who_was_killed_is_removed(serve, short_path):
    directory = short_path / "root/builds"
    directory.mkdir(parents=True)
    inner = os.open(directory, os.O_RDONLY)
    for _ in range(3000):  # deeper than a path can be long, or a stack of Python deep
        os.mkdir("d", dir_fd=inner)
        inner, outer = os.open("d", os.O_RDONLY, dir_fd=inner), inner
        os.close(outer)
    os.close(inner)
    serve()
    assert [] == os.listdir(directory)


def test_a_group_that_there_is_not(short_path, capsys):
    arguments = ["engine", "serve", "--data-root", str(short_path / "root"), "-H", f"unix://{short_path}/s"]
    assert 2 == main([*arguments, "-G", "no-such-group"])
    assert "onggi: there is no group `no-such-group` on this machine" == capsys.readouterr().err.splitlines()[-1]


def test_nothing_is_left_of_a_signal_handler(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    main(["engine", "serve", "--data-root", str(tmp_path), "-H", "ftp://x"])
    assert before == signal.getsignal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp://127.0.0.1:2376", "tcp://127.0.0.1:2376"),
        ("tcp://localhost", "tcp://localhost:2376"),
        ("tcp://[::1]:1", "tcp://[::1]:1"),
        ("tcp://[::1]", "tcp://[::1]:2376"),
        ("unix:///a/b", "unix:///a/b"),
    ],
)
def test_endpoints(text, expected):
    assert expected == str(Endpoint.parse(text))


def test_the_same_place_twice(tmp_path, capsys):
    place = f"unix://{tmp_path}/s"
    assert 2 == main(["engine", "serve", "--data-root", str(tmp_path / "root"), "-H", place, "-H", place])
    assert f"onggi: -H names {place} twice\n" == capsys.readouterr().err


def test_where_it_listens_when_told_nothing(monkeypatch):
    from real_engine.daemon.serving import default_socket

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "/run/onggi/onggi.sock" == str(default_socket())
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert "/run/user/1000/onggi.sock" == str(default_socket())
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with pytest.raises(InvalidParameter, match="XDG_RUNTIME_DIR is not set"):
        default_socket()


def test_an_address_pool():
    assert AddressPool("10.99.0.0/16", 24) == address_pool("base=10.99.0.0/16,size=24")


# --- the data root ---------------------------------------------------------------------------------------------------


def test_the_lock_is_given_back(short_path):
    config = DaemonConfig(short_path)
    first, second = Daemon(config, ()), Daemon(config, ())
    first._directories()
    first._take_lock()
    with pytest.raises(Conflict, match="is used by another daemon"):
        second.start()
    first.stop()
    second._take_lock()
    second.stop()


def test_what_ends_may_ask_for_another_part_meanwhile(short_path):
    daemon = Daemon(DaemonConfig(short_path), ())
    refused = []

    class Containers:
        def close(self):
            with ThreadPoolExecutor(1) as pool:  # as its workers do, who report to it what they have seen
                refused.append(pool.submit(lambda: daemon.networks).exception(10))

    daemon._services["containers"] = Containers()
    ending = threading.Thread(target=daemon.stop)
    ending.start()
    ending.join(15)
    assert not ending.is_alive()
    assert ["the engine is ending"] == [str(error) for error in refused]


def test_what_was_half_done_is_removed(short_path):
    daemon = Daemon(DaemonConfig(short_path), ())
    daemon._directories()
    (short_path / "tmp/half").mkdir()
    (short_path / "tmp/half/file").touch()
    (short_path / "builds/link").symlink_to("/")
    daemon._empty("tmp")
    daemon._empty("builds")
    assert ([], []) == (os.listdir(short_path / "tmp"), os.listdir(short_path / "builds"))
    assert os.listdir("/")


def test_an_identity_that_is_damaged_is_told(short_path):
    (short_path / "engine.json").write_text("{")
    with pytest.raises(Exception, match=r"cannot read .*engine\.json"):
        _ = Daemon(DaemonConfig(short_path), ()).id


# --- TCP -------------------------------------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.peer
def test_docker_over_mutual_tls(serve, tmp_path):
    openssl, docker = shutil.which("openssl"), shutil.which("docker")
    if openssl is None or docker is None:
        pytest.skip("needs openssl and the docker command: `make peers` installs them")

    def run(*arguments):
        subprocess.run([openssl, *arguments], cwd=tmp_path, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    run("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    (tmp_path / "ext").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    for name in ("server", "client"):
        run("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        run(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-out", f"{name}.pem", "-extfile", "ext"),
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def tls(name):
        files = {"tlscacert": "ca.pem", "tlscert": f"{name}.pem", "tlskey": f"{name}.key"}
        return [
            "--tlsverify",
            *(word for option, file in files.items() for word in (f"--{option}", f"{tmp_path}/{file}")),
        ]

    served = serve("-H", f"tcp://127.0.0.1:{port}", *tls("server"))
    command = [docker, "--config", str(tmp_path / "config"), "-H", f"tcp://127.0.0.1:{port}"]
    secured = subprocess.run([*command, *tls("client"), "version"], capture_output=True, text=True, check=False)
    assert "Server: onggi" in secured.stdout, secured.stderr
    plain = subprocess.run([*command, "version"], capture_output=True, text=True, check=False)
    assert (1, False) == (plain.returncode, "Server: onggi" in plain.stdout)
    assert "Traceback" not in served.log.read_text()


def test_help_names_every_option():
    result = subprocess.run(
        [sys.executable, "-m", "classroom.cli", "engine", "serve", "--help"], capture_output=True, text=True, check=True
    )
    for option in ("--data-root", "-H", "-G", "--tlsverify", "--bridge", "--trace", "--no-userland-proxy", "--mtu"):
        assert option in result.stdout


def test_the_version_is_the_installed_one():
    assert version("onggi") == engine_version()
