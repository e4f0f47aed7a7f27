"""What the READMEs say is so: their numbers come from code, and their commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from classroom.commands.table import COMMANDS

CHECKOUT = Path(__file__).resolve().parents[1]
READMES = ["README.md", "README.ko.md"]


def test_the_tables_are_what_the_command_finds():
    checked = subprocess.run(
        [sys.executable, CHECKOUT / "tools" / "readme_table.py", "--check"], capture_output=True, text=True
    )

    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("name", READMES)
def test_every_command_that_is_named_exists(name):
    named = set(re.findall(r"^    onggi (\w+)", (CHECKOUT / name).read_text(encoding="utf-8"), re.MULTILINE))

    assert named
    assert named <= set(COMMANDS)


@pytest.mark.parametrize("name", READMES)
def test_every_file_that_is_linked_exists(name):
    text = (CHECKOUT / name).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]

    assert links
    assert [link for link in links if not (CHECKOUT / link).exists()] == []


def test_both_languages_show_the_same_commands():
    english, korean = ((CHECKOUT / name).read_text(encoding="utf-8") for name in READMES)

    def commands(text: str) -> list[str]:
        return re.findall(r"^    ((?:make|onggi) \S+(?: --?\S+)*)", text, re.MULTILINE)

    assert commands(english) == commands(korean)
