import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from real_engine.errors import EngineError
from real_engine.virtual_machine.accelerators import Accelerator, best_accelerator, probe_accelerators
from real_engine.virtual_machine.guest_files import GuestFiles

StandIn = Callable[[str], Path]


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A /dev/kvm that opens."""
    path = tmp_path / "kvm"
    path.touch()
    return path


@pytest.fixture(autouse=True)
def guest_kernel(files: GuestFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONGGI_GUEST_KERNEL", str(files.kernel))


def probe_kvm(cache: Path, device: Path, timeout_seconds: float = 30.0) -> Accelerator:
    return probe_accelerators(cache, device=device, timeout_seconds=timeout_seconds)["kvm"]


def test_kvm_works_where_a_guest_boots(stand_in: StandIn, boots: str, device: Path, tmp_path: Path) -> None:
    calls = stand_in(boots)
    kvm = probe_kvm(tmp_path, device)
    assert (True, "vm-kvm") == (kvm.usable, kvm.platform)
    assert "-accel kvm" in calls.read_text()


def test_a_kvm_that_opens_and_never_boots_is_not_used(stand_in: StandIn, device: Path, tmp_path: Path) -> None:
    stand_in("access(); time.sleep(60)")
    accelerators = probe_accelerators(tmp_path, device=device, timeout_seconds=0.5)
    assert not accelerators["kvm"].usable
    assert f"{device} opens, but" in accelerators["kvm"].reason
    assert "did not boot within 0.5 s" in accelerators["kvm"].reason
    assert accelerators["tcg"].usable


def test_without_the_device_no_guest_is_tried(stand_in: StandIn, boots: str, tmp_path: Path) -> None:
    calls = stand_in(boots)
    kvm = probe_kvm(tmp_path, tmp_path / "absent")
    assert not kvm.usable
    assert "there is no" in kvm.reason
    assert "" == calls.read_text()


def test_a_device_that_does_not_open_is_told(stand_in: StandIn, boots: str, tmp_path: Path) -> None:
    calls = stand_in(boots)
    kvm = probe_kvm(tmp_path, tmp_path)  # a directory cannot be opened for writing
    assert not kvm.usable
    assert "does not open: Is a directory" in kvm.reason
    assert "" == calls.read_text()


def test_a_lack_of_permission_is_told(
    stand_in: StandIn, boots: str, device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(boots)
    opened = os.open

    def refuse_device(path: str, flags: int, *rest: int) -> int:
        if Path(path) == device:  # root may open anything, so the kernel's refusal is played here
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse_device)
    kvm = probe_kvm(tmp_path, device)
    assert not kvm.usable
    assert "no permission" in kvm.reason
    assert "group kvm" in kvm.reason


def test_the_outcome_is_remembered_within_and_between_processes(
    stand_in: StandIn, boots: str, device: Path, tmp_path: Path
) -> None:
    calls = stand_in(boots)
    first = probe_kvm(tmp_path, device)
    assert first == probe_kvm(tmp_path, device)
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from real_engine.virtual_machine.accelerators import probe_accelerators\n"
        "print(probe_accelerators(Path(sys.argv[1]), device=Path(sys.argv[2]), timeout_seconds=30.0)['kvm'].reason)"
    )
    other = subprocess.run(
        [sys.executable, "-c", program, tmp_path, device], capture_output=True, text=True, check=True
    )
    assert first.reason == other.stdout.strip()
    assert 1 == len(calls.read_text().splitlines())


def test_another_qemu_is_probed_anew(stand_in: StandIn, boots: str, device: Path, tmp_path: Path) -> None:
    stand_in("sys.exit('no such accelerator')")
    assert not probe_kvm(tmp_path, device).usable
    stand_in(boots)
    assert probe_kvm(tmp_path, device).usable


def test_a_spoilt_record_is_made_again(stand_in: StandIn, boots: str, device: Path, tmp_path: Path) -> None:
    calls = stand_in(boots)
    cache = tmp_path / "cache"
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from real_engine.virtual_machine.accelerators import probe_accelerators\n"
        "print(probe_accelerators(Path(sys.argv[1]), device=Path(sys.argv[2]), timeout_seconds=30.0)['kvm'].usable)"
    )
    command = [sys.executable, "-c", program, cache, device]
    assert "True\n" == subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (record,) = cache.glob("kvm-probe-*.json")
    record.write_text('{"usable": "perhaps"}')
    assert "True\n" == subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 2 == len(calls.read_text().splitlines())


def test_without_qemu_neither_works_and_the_reason_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    accelerators = probe_accelerators(tmp_path / "cache")
    assert not any(accelerator.usable for accelerator in accelerators.values())
    assert all("qemu-system-x86" in accelerator.reason for accelerator in accelerators.values())
    with pytest.raises(EngineError, match="qemu-system-x86"):
        best_accelerator(tmp_path / "cache")
