import struct
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from real_engine.errors import EngineError
from real_engine.images.busybox import find_busybox
from real_engine.virtual_machine import guest_files as module
from real_engine.virtual_machine.guest_files import GuestFiles, find_kernel, guest_files, kernel_release

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="guests need Linux")


def bz_image(path: Path, release: str) -> Path:
    """A file that says of itself what a bzImage of that release says."""
    head = bytearray(2048)
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x20E, 0x300)
    version = f"{release} (someone@somewhere) #1 SMP".encode()
    head[0x500 : 0x500 + len(version)] = version
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head)
    return path


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """A user's cache, the system's cache and /boot, all empty."""
    cache, system, boot = tmp_path / "cache", tmp_path / "system", tmp_path / "boot"
    monkeypatch.setattr(module, "SYSTEM_CACHE", system)
    monkeypatch.setattr(module, "_BOOT", boot)
    monkeypatch.delenv("ONGGI_GUEST_KERNEL", raising=False)
    return cache, system, boot


def test_a_kernel_is_looked_for_nearest_first(
    places: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, system, boot = places
    in_boot = bz_image(boot / "vmlinuz-6.1.0-1-cloud-amd64", "6.1.0-1-cloud-amd64")
    bz_image(boot / "vmlinuz-6.1.0-2-amd64", "6.1.0-2-amd64")  # not a cloud kernel: its console may be a module
    assert in_boot == find_kernel(cache)
    in_system = bz_image(system / "vmlinuz-6.1.0-1", "6.1.0-1")
    assert in_system == find_kernel(cache)
    in_cache = bz_image(cache / "vmlinuz-6.1.0-1", "6.1.0-1")
    assert in_cache == find_kernel(cache)
    named = bz_image(tmp_path / "mine", "7.0")
    monkeypatch.setenv("ONGGI_GUEST_KERNEL", str(named))
    assert named == find_kernel(cache)


def test_the_newest_kernel_is_taken(places: tuple[Path, Path, Path]) -> None:
    cache = places[0]
    bz_image(cache / "vmlinuz-6.1.0-9-cloud-amd64", "6.1.0-9")
    newest = bz_image(cache / "vmlinuz-6.1.0-10-cloud-amd64", "6.1.0-10")
    assert newest == find_kernel(cache)


def test_without_a_kernel_the_error_says_where_it_was_looked_for(places: tuple[Path, Path, Path]) -> None:
    with pytest.raises(EngineError, match="tools/debian-packages") as raised:
        find_kernel(places[0])
    assert all(str(place) in str(raised.value) for place in places)


def test_a_kernel_tells_its_release(tmp_path: Path) -> None:
    assert "6.1.0-37-cloud-amd64" == kernel_release(bz_image(tmp_path / "k", "6.1.0-37-cloud-amd64"))


@pytest.mark.parametrize("content", [None, b"", b"\x7fELF" + bytes(4096)])
def test_a_file_that_is_no_kernel_is_named(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kernel"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("ONGGI_GUEST_KERNEL", str(path))
    with pytest.raises(EngineError, match=str(path)):
        find_kernel(tmp_path)


def test_a_script_is_not_taken_for_busybox(tmp_path: Path) -> None:
    script = tmp_path / "busybox"
    script.write_text("#!/bin/sh\n")
    with pytest.raises(EngineError, match="busybox-static"):
        find_busybox([script, tmp_path / "absent"])


def test_many_processes_build_one_initramfs(files: GuestFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONGGI_GUEST_KERNEL", str(files.kernel))
    with ProcessPoolExecutor(4) as pool:
        built = set(pool.map(guest_files, [tmp_path / "new"] * 8))
    assert 1 == len(built)
    assert files.initramfs.read_bytes() == built.pop().initramfs.read_bytes()
    assert 1 == len(list((tmp_path / "new").iterdir()))


def test_a_cache_that_cannot_be_written_is_named(files: GuestFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONGGI_GUEST_KERNEL", str(files.kernel))
    below_a_file = files.initramfs / "cache"
    with pytest.raises(EngineError, match="XDG_CACHE_HOME"):
        guest_files(below_a_file)
