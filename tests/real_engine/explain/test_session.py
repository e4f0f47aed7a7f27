"""A recording is read as it was written, at its own pace, and what is no recording is refused with its line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from real_engine.errors import EngineError
from real_engine.explain import session

REFERENCE = Path(__file__).parents[3] / "data" / "recordings" / "engine-session.jsonl"


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "s.jsonl"
    recording = session.Recording(path)
    records = [session.header(["docker", "ps"]), {"kind": "frame", "at": 0.5, "exchange": 1, "text": "안녕\n"}]
    for record in records:
        recording(record)
    recording.close()
    assert (records, 0o600) == (list(session.read(path)), path.stat().st_mode & 0o777)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "nothing was recorded"),
        ('{"kind":"step","at":0}\n', "does not begin as a session"),
        ('{"kind":"session","format":1,"at":0}\nnot json\n', ":2: not a line of JSON"),
        ('{"kind":"session","format":1,"at":0}\n{"kind":"dance","at":0}\n', ":2: `dance` is no kind"),
        ('{"kind":"session","format":1,"at":0}\n{"kind":"step"}\n', ":2: it has no `at`"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path, lines, said):
    path = tmp_path / "s.jsonl"
    path.write_text(lines)
    with pytest.raises(EngineError, match=said.replace("`", ".")):
        list(session.read(path))


def test_pauses_are_those_of_the_recording():
    slept = []
    records = [{"kind": "step", "at": at} for at in (0.0, 1.0, 3.0, 100.0)]
    assert records == list(session.paced(iter(records), 2.0, slept.append))
    assert [0.5, 1.0, 5.0] == slept


def test_the_reference_session_holds_a_pull_a_build_and_a_run_and_no_secret():
    records = list(session.read(REFERENCE))
    phases = {record["phase"] for record in records if record["kind"] == "step"}
    targets = [record["target"] for record in records if record["kind"] == "request"]
    assert set() == {"registry", "store", "build", "cache", "network", "clone", "mounts", "confine", "end"} - phases
    assert (True, True) == (
        any("/build?" in each for each in targets),
        any(each.endswith("/start") for each in targets),
    )
    assert "hello from a container\n" in [record.get("text") for record in records if record["kind"] == "frame"]
    assert REFERENCE.stat().st_size < 200_000


@pytest.mark.parametrize(
    ("platform", "language", "said"), [("win32", "en", "image's layers"), ("darwin", "ko", "레이어")]
)
def test_it_replays_where_there_is_no_linux(platform, language, said):
    """In a Python that has nothing of Linux: those modules can't be imported there."""
    script = f"""
import sys
import rich.console, rich.table  # which look for a console of Windows where there is none
sys.platform = {platform!r}
for name in ("fcntl", "resource", "pwd", "grp", "termios", "real_engine.linux", "real_engine.http"):
    sys.modules[name] = None
from classroom.cli import main
sys.exit(main(["engine", "replay", "--lang", {language!r}, {str(REFERENCE)!r}]))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False, encoding="utf-8"
    )
    assert (0, "") == (result.returncode, result.stderr)
    assert said in result.stdout
    assert json.dumps({"StatusCode": 0}) in result.stdout
