"""One client speaks to several daemons, which do not mix."""

import json
import shutil

import pytest
from docker_command_line import CommandLine

pytestmark = [
    pytest.mark.root,
    pytest.mark.peer,
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command line: make peers"),
]


def test_contexts_lead_to_daemons(onggi: CommandLine, dockerd: CommandLine, tmp_path) -> None:
    # Neither DOCKER_HOST nor -H is given: they would win over a context.
    docker = CommandLine("", tmp_path)
    names = {"ours": onggi.host, "theirs": dockerd.host}
    for name, host in names.items():
        made = docker("context", "create", name, "--docker", f"host={host}")
        assert 0 == made.status, made.stderr
    ids = {name: docker("--context", name, "info", "--format", "{{.ID}}").stdout.strip() for name in names}
    assert 2 == len(set(ids.values()) - {""})
    for name in names:
        assert 0 == docker("--context", name, "run", "-d", "--name", f"on-{name}", "bb", "sleep", "100").status
    try:
        for name in names:
            assert 0 == docker("context", "use", name).status
            listed = docker("ps", "--filter", "name=^/on-", "--format", "{{.Names}}")
            assert [f"on-{name}"] == listed.stdout.split()
        inspected = json.loads(docker("context", "inspect", "ours").stdout)
        assert onggi.host == inspected[0]["Endpoints"]["docker"]["Host"]
        for name, host in names.items():
            assert f"on-{name}\n" == docker("-H", host, "ps", "--filter", "name=^/on-", "--format", "{{.Names}}").stdout
    finally:
        for name in names:
            docker("--context", name, "rm", "-f", f"on-{name}")
