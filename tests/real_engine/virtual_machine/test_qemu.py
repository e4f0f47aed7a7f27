from pathlib import Path

import pytest

from real_engine.errors import EngineError
from real_engine.virtual_machine.qemu import find_qemu, machine_types, qemu_version


def test_there_is_a_small_machine_and_a_whole_pc() -> None:
    assert ("microvm", "q35") == machine_types()


def test_qemu_tells_its_version(tmp_path: Path) -> None:
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\necho 'QEMU emulator version 9.1.2 (Debian 1:9.1)'\necho 'Copyright'\n")
    program.chmod(0o755)
    assert "9.1.2" == qemu_version(str(program))


@pytest.mark.qemu
def test_the_real_qemu_tells_its_version() -> None:
    try:
        program = find_qemu()
    except EngineError as error:
        pytest.skip(str(error))
    assert qemu_version(program)[0].isdigit()


@pytest.mark.parametrize("script", ["exit 1", "echo hello"])
def test_a_program_that_is_no_qemu_is_named(script: str, tmp_path: Path) -> None:
    program = tmp_path / "qemu"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    with pytest.raises(EngineError, match=str(program)):
        qemu_version(str(program))


def test_a_missing_qemu_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="qemu-system-x86"):
        find_qemu()
