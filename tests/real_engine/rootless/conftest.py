"""The machine that the tests of an ordinary user's engine run on."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ordinary_user import Machine, machine, why_not


@pytest.fixture
def user_machine(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine whose user has subordinate ids, unless the test is parametrized with False."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    # Not beneath pytest's own directory, which ordinary users may not enter.
    directory = Path(tempfile.mkdtemp(prefix="rootless-"))
    try:
        with machine(directory, subordinate=getattr(request, "param", True)) as made:
            yield made
    finally:
        subprocess.run(["rm", "-rf", str(directory)], check=False)
