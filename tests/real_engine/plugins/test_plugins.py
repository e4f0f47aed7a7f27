"""Plugins: found by socket and spec, installed, enabled, disabled, remembered; and the protocol with one."""

import json
import time
from pathlib import Path

import pytest

from real_engine.errors import Conflict, EngineError, InvalidParameter, NotFound
from real_engine.plugins.discovery import Address, Discovery
from real_engine.plugins.protocol import MEDIA_TYPE, PluginClient
from real_engine.plugins.store import Plugins


def test_a_plugin_is_installed_enabled_and_remembered(sample_plugin, plugins: Plugins, tmp_path: Path, sockets: Path):
    plugin = plugins.install("sample:latest")
    assert not plugin.enabled
    assert plugins.enable("sample").enabled
    again = Plugins(tmp_path / "root", (sockets,))
    assert [("sample", True)] == [(one.name, one.enabled) for one in again.installed()]
    assert 0o600 == (tmp_path / "root/plugins/plugins.json").stat().st_mode & 0o777
    assert "sample:latest" == again.to_json(again.get(plugin.id[:12]))["Name"]


def test_the_name_that_the_command_line_sends_is_understood(sample_plugin, plugins: Plugins):
    assert "sample" == plugins.install("docker.io/library/sample:latest").name
    assert "sample" == plugins.get("sample:latest").name


def test_there_is_nothing_to_install_without_a_socket(plugins: Plugins):
    with pytest.raises(NotFound, match='plugin "nosuch" not found'):
        plugins.install("nosuch")
    with pytest.raises(NotFound):
        plugins.install("../sample")


def test_states_that_are_so_already(sample_plugin, plugins: Plugins):
    plugins.install("sample")
    with pytest.raises(Conflict):
        plugins.install("sample")
    with pytest.raises(Conflict):
        plugins.disable("sample")
    plugins.enable("sample")
    with pytest.raises(Conflict):
        plugins.enable("sample")
    with pytest.raises(Conflict, match="is enabled"):
        plugins.remove("sample")
    with pytest.raises(Conflict, match="in use"):
        plugins.disable("sample", used_by=["volume"])
    with pytest.raises(Conflict, match="active plugin"):
        plugins.configure("sample", ["DEBUG=1"])
    plugins.disable("sample", used_by=["volume"], force=True)
    with pytest.raises(InvalidParameter, match='setting "DEBUG" not found'):
        plugins.configure("sample", ["DEBUG=1"])
    plugins.remove("sample")
    with pytest.raises(NotFound, match='plugin "sample" not found'):
        plugins.get("sample")


def test_a_disabled_plugin_is_no_driver_and_one_that_nobody_installed_is(sample_plugin, plugins: Plugins):
    assert ["sample"] == plugins.volume_driver_names()
    assert "global" == plugins.volume_driver("sample").scope
    plugins.install("sample")
    assert [] == plugins.volume_driver_names()
    with pytest.raises(NotFound, match="found but disabled"):
        plugins.volume_driver("sample")


def test_a_plugin_for_something_else_is_refused(make_plugin, plugins: Plugins):
    make_plugin("other", ("NetworkDriver",))
    plugins.install("other")
    with pytest.raises(EngineError, match="does not implement VolumeDriver: it implements NetworkDriver"):
        plugins.enable("other")


def test_specs_name_an_address(tmp_path: Path):
    (tmp_path / "a.spec").write_text("unix:///run/a.sock\n")
    (tmp_path / "b.spec").write_text("tcp://localhost:80")
    tls = {"InsecureSkipVerify": False, "CAFile": "/ca", "CertFile": "/cert", "KeyFile": "/key"}
    (tmp_path / "c.json").write_text(json.dumps({"Name": "c", "Addr": "https://example.org/d", "TLSConfig": tls}))
    (tmp_path / "d.spec").write_text("what is this")
    (tmp_path / "e.json").write_text("{")
    discovery = Discovery((tmp_path,))
    assert "/run/a.sock" == discovery.find("a").socket_path
    assert Address("tcp://localhost:80") == discovery.find("b")
    assert ("/ca", True) == (discovery.find("c").ca_file, discovery.find("c").encrypted)
    for name in ("d", "e"):
        with pytest.raises(EngineError, match=f"{name}\\."):
            discovery.find(name)


def test_the_protocol_speaks_dockers_media_type(sample_plugin, sockets: Path):
    client = PluginClient("sample", Address(f"unix://{sockets}/sample.sock"))
    assert ["VolumeDriver"] == client.activate()
    assert {MEDIA_TYPE} == sample_plugin.media_types


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((500, b'{"Err": "the disk is full"}'), "VolumeDriver.Create: the disk is full"),
        ((200, b'{"Err": "not today"}'), "VolumeDriver.Create: not today"),
        ((503, b"<html>away</html>"), "VolumeDriver.Create: <html>away</html>"),
        ((200, b"hello"), "something else than JSON"),
        ((200, b"[1]"), "something else than an object"),
        ((200, b'"' + b"x" * (5 << 20) + b'"'), "more than"),
    ],
)
def test_errors_of_a_plugin_are_told(sample_plugin, sockets: Path, answer, message):
    sample_plugin.answers["VolumeDriver.Create"] = answer
    client = PluginClient("sample", Address(f"unix://{sockets}/sample.sock"))
    with pytest.raises(EngineError, match=message):
        client.call("VolumeDriver.Create", {"Name": "v"})


def test_a_plugin_that_is_away_is_waited_for_and_then_given_up(sockets: Path, make_plugin):
    client = PluginClient("late", Address(f"unix://{sockets}/late.sock"), retry_seconds=0.3)
    begin = time.monotonic()
    with pytest.raises(EngineError, match=r"late\.sock: connect: no such file or directory"):
        client.activate()
    assert time.monotonic() - begin < 2
    make_plugin("late", ("VolumeDriver",))
    assert ["VolumeDriver"] == client.activate()


def test_a_plugin_that_gives_no_answer_is_left(sockets: Path):
    import socket

    silent = socket.socket(socket.AF_UNIX)
    silent.bind(str(sockets / "silent.sock"))
    silent.listen()
    try:
        client = PluginClient("silent", Address(f"unix://{sockets}/silent.sock"))
        with pytest.raises(EngineError, match="no answer within"):
            client.call("Plugin.Activate", {}, seconds=0.2)
    finally:
        silent.close()
