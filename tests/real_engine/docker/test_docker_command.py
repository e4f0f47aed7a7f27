"""The unmodified docker command drives our daemon as it drives Docker's: the same sessions on both, compared."""

import shutil

import pytest
from docker_command_line import CommandLine, Step, normalised
from docker_sessions import SESSIONS

pytestmark = [
    pytest.mark.root,
    pytest.mark.peer,
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command line: make peers"),
]


def _compared(one: Step, outcome: object) -> object:
    if one.compare == "nothing":
        return None
    if one.compare == "status":
        return outcome.status
    shown = (normalised(outcome.stdout), normalised(outcome.stderr))
    if one.compare == "lines":
        shown = tuple("\n".join(sorted(text.splitlines())) for text in shown)
    return outcome.status, *shown


@pytest.mark.parametrize("session", SESSIONS)
def test_a_session_goes_as_with_docker(session: str, onggi: CommandLine, dockerd: CommandLine) -> None:
    differences = []
    for one in SESSIONS[session]:
        theirs, ours = dockerd.run(one), onggi.run(one)
        if _compared(one, theirs) != _compared(one, ours):
            differences.append(f"docker {' '.join(one.words)}\n  docker: {theirs}\n  onggi:  {ours}")
    assert not differences, "\n".join(["", *differences])
