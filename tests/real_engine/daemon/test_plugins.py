"""The API's calls under /plugins, and the command line's with a plugin that runs beside the daemon."""

import copy
import shutil
import subprocess
from pathlib import Path

import pytest
from sample_plugin import SamplePlugin

DOCKER = shutil.which("docker")


@pytest.fixture
def sample(daemon, short_path: Path):
    _ = daemon.volumes  # makes the directory
    plugin = SamplePlugin(daemon.config.data_root / "plugins/sample.sock", short_path / "content")
    yield plugin
    plugin.close()


def test_a_life(api, sample, check):
    assert [] == api.get("/plugins/privileges", remote="sample").json()
    pulled = api.post("/plugins/pull", [], remote="sample")
    assert 200 == pulled.status
    assert "Pulling from sample" == pulled.lines()[0]["status"]
    assert 200 == api.post("/plugins/sample/enable", timeout=5).status
    (plugin,) = api.get("/plugins").json()
    assert ("sample:latest", True, ["docker.volumedriver/1.0"]) == (
        plugin["Name"],
        plugin["Enabled"],
        plugin["Config"]["Interface"]["Types"],
    )
    described = copy.deepcopy(plugin)
    # The description has objects there; dockerd sends, and its clients read, text.
    described["Config"]["Interface"]["Types"] = []
    check("GET", "/plugins", 200, [described])
    assert plugin == api.get("/plugins/sample/json").json()
    assert [] == api.get("/plugins", filters={"enabled": ["false"]}).json()
    assert [plugin] == api.get("/plugins", filters={"capability": ["volumedriver"]}).json()
    assert 409 == api.delete("/plugins/sample").status
    assert 200 == api.post("/plugins/sample/disable").status
    assert 200 == api.delete("/plugins/sample").status
    assert [] == api.get("/plugins").json()


def test_what_is_not_there(api):
    for method, path in (
        ("GET", "/plugins/nosuch/json"),
        ("POST", "/plugins/nosuch/enable"),
        ("POST", "/plugins/nosuch/disable"),
        ("POST", "/plugins/nosuch/push"),
        ("DELETE", "/plugins/nosuch"),
    ):
        answer = api.request(method, path)
        assert (404, 'plugin "nosuch" not found') == (answer.status, answer.message)
    assert 404 == api.post("/plugins/pull", [], remote="nosuch").status
    assert 400 == api.get("/plugins", filters={"x": ["y"]}).status
    assert 501 == api.post("/plugins/create", name="x").status


def test_a_plugin_whose_volumes_are_in_use_stays(api, daemon, sample):
    api.post("/plugins/pull", [], remote="sample")
    api.post("/plugins/sample/enable")
    assert 201 == api.post("/volumes/create", {"Name": "v1", "Driver": "sample"}).status
    daemon.volumes.refer("v1", "c1")
    answer = api.post("/plugins/sample/disable")
    assert (409, "plugin sample:latest is in use") == (answer.status, answer.message)
    assert 200 == api.post("/plugins/sample/disable", force=1).status


@pytest.mark.peer
@pytest.mark.skipif(DOCKER is None, reason="needs the docker command line")
def test_the_command_line_installs_and_uses_a_plugin(api, sample):
    def docker(*arguments: str) -> str:
        done = subprocess.run([str(DOCKER), "-H", api.host, *arguments], capture_output=True, text=True)
        return (done.stdout + done.stderr).strip()

    assert docker("plugin", "install", "--grant-all-permissions", "sample").endswith("Installed plugin sample")
    assert "sample:latest true" == docker("plugin", "ls", "--format", "{{.Name}} {{.Enabled}}")
    assert "v1" == docker("volume", "create", "-d", "sample", "-o", "size=3", "v1")
    assert "sample v1" == docker("volume", "ls", "--format", "{{.Driver}} {{.Name}}")
    assert "sample" == docker("plugin", "disable", "sample")
    assert "found but disabled" in docker("volume", "create", "-d", "sample", "v2")
    assert "sample" == docker("plugin", "rm", "sample")
    assert 'plugin "nosuch" not found' in docker("plugin", "install", "--grant-all-permissions", "nosuch")
