"""The `onggi` command itself: cheap to start, kind when misused."""

import os
import subprocess
import sys

import pytest

from classroom.cli import main
from classroom.commands.table import COMMANDS


def test_help_imports_nothing_that_starting_would_pay_for():
    program = (
        "import sys; before = set(sys.modules)\n"
        "from classroom.cli import main\n"
        "main(['--help'])\n"
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    imported = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stderr.split()

    assert imported == ["classroom", "classroom.cli", "classroom.commands", "classroom.commands.table"]


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0

    output = capsys.readouterr().out
    assert all(f"\n  {name} " in output for name in COMMANDS)


def test_without_a_command_tells_how_to_use_it(capsys):
    assert main([]) == 2

    assert "usage: onggi" in capsys.readouterr().out


def test_a_misspelt_command_is_answered_with_the_nearest(capsys):
    assert main(["comapre"]) == 2

    error = capsys.readouterr().err
    assert error == "onggi: unknown command `comapre`: did you mean `onggi compare`?\n"


@pytest.mark.parametrize("command", list(COMMANDS))
def test_each_command_tells_its_options(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])

    assert ended.value.code == 0
    assert f"usage: onggi {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", list(COMMANDS))
def test_an_unknown_option_ends_with_status_2(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--no-such-option"])

    assert ended.value.code == 2


def test_a_terminal_without_hangul_gets_the_rest(tmp_path):
    command = [sys.executable, "-m", "classroom.cli", "report", "--language", "ko", "--replications", "1"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    shown = [*command, "--measurements", "reference", "--output", str(tmp_path / "보고서.html")]

    done = subprocess.run(shown, capture_output=True, text=True, env=environment)

    assert done.returncode == 0, done.stderr
    assert "report: " in done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a file that is always full")
@pytest.mark.parametrize("arguments", [["--version"], ["run", "steady", "--replications", "1", "--json", "-"]])
def test_output_that_has_no_room_is_told_in_one_line(arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "classroom.cli", *arguments], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (2, "onggi: cannot write: No space left on device") == (done.returncode, done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr
