"""The wheel holds all that it needs: in a checkout, the files around it would hide a missing one."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of a new environment into which the wheel, and nothing of the checkout, was installed."""
    place = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", place, CHECKOUT], check=True)
    (wheel,) = place.glob("onggi-*.whl")
    venv.create(place / "venv", with_pip=True)
    bin_directory = place / "venv" / "bin"
    subprocess.run([bin_directory / "python", "-m", "pip", "install", "--quiet", wheel], check=True)
    return bin_directory


def run(installed: Path, empty: Path, *arguments: str) -> str:
    """Run the installed command in an empty directory, without what this process has been told of its data."""
    environment = {name: value for name, value in os.environ.items() if name not in ("ONGGI_DATA", "PYTHONPATH")}
    command = [installed / "onggi", *arguments]
    return subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_command_of_a_wheel_tells_how_to_use_it(installed, tmp_path):
    assert "usage: onggi" in run(installed, tmp_path, "--help")


def test_a_wheel_simulates(installed, tmp_path):
    result = json.loads(run(installed, tmp_path, "run", "steady", "--replications", "2", "--seed", "1", "--json", "-"))

    assert result["platform"] == "container"


def test_a_wheel_has_the_reference_measurements(installed, tmp_path):
    result = json.loads(run(installed, tmp_path, "validate", "--measurements", "reference", "--json", "-"))

    assert len(result["pairs"]) > 0
