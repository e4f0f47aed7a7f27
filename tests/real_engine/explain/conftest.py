"""A daemon of our own to look at, in a network namespace of its own."""

import os
import signal
import subprocess
import sys
import time

import pytest


@pytest.fixture(scope="module")
def engine_url(tmp_path_factory):
    """The address of a daemon that runs as long as the module's tests."""
    directory = tmp_path_factory.mktemp("e")
    path = directory / "s.sock"
    inner = f"ip link set lo up; exec {sys.executable} -m classroom.cli engine serve --data-root {directory}/data -H unix://{path}"
    log = directory / "log"
    with log.open("wb") as file:
        daemon = subprocess.Popen(["unshare", "--net", "sh", "-c", inner], stderr=file, stdout=file)
    deadline = time.monotonic() + 30
    while b"listening" not in log.read_bytes():
        if daemon.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the daemon does not come up: {log.read_text()}")
        time.sleep(0.05)
    yield f"unix://{path}"
    environment = {**os.environ, "DOCKER_HOST": f"unix://{path}"}
    listed = subprocess.run(["docker", "ps", "-aq"], env=environment, capture_output=True, text=True, check=False)
    if listed.stdout.split():
        subprocess.run(
            ["docker", "rm", "-f", *listed.stdout.split()], env=environment, capture_output=True, check=False
        )
    daemon.send_signal(signal.SIGTERM)
    daemon.wait(30)
