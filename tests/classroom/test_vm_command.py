import shutil
from pathlib import Path

import pytest

from classroom.cli import main
from real_engine.errors import EngineError
from real_engine.virtual_machine.guest_files import guest_files


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and what a guest needs. Skips where that is missing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("no qemu-system-x86_64: run `tools/debian-packages test` as root")
    try:
        guest_files()
    except EngineError as error:
        pytest.skip(str(error))
    return tmp_path


@pytest.mark.qemu
def test_a_boot_is_shown_and_explained(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["vm", "boot", "--machine", "q35", "--accelerator", "tcg", "--memory", "96M", "--explain"])
    shown = capsys.readouterr().out
    for part in (
        "vm-tcg, q35",
        "vmm",
        "firmware",
        "guest-kernel",
        "guest-init",
        "total",
        "decompresses",
        "of its 96 MiB",
    ):
        assert part.lower() in shown.lower()
    assert "measured" in shown
    assert "emulates" in shown


def test_probe_names_both_platforms(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["vm", "probe"])
    shown = capsys.readouterr().out
    assert "vm-kvm" in shown
    assert "vm-tcg works" in shown


def test_what_is_missing_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ONGGI_GUEST_KERNEL", str(tmp_path / "absent"))
    assert 2 == main(["vm", "boot", "--accelerator", "tcg"])
    told = capsys.readouterr().err
    assert 1 == len(told.strip().splitlines())
    assert "onggi: " in told
    assert "Traceback" not in told


@pytest.mark.parametrize("memory", ["128", "12x", "-1M", "1K", "0M", "100G", "M", "٣M"])
def test_a_memory_size_that_makes_no_sense_is_refused(memory: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["vm", "boot", f"--memory={memory}"])
    assert 2 == raised.value.code
    assert "128M" in capsys.readouterr().err
