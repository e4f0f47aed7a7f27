"""The built-in image is whole or not there, and made from a static binary only."""

import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from real_engine.errors import EngineError
from real_engine.images import busybox
from real_engine.images.busybox import builtin_image, is_static_elf

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the image is made from a Linux machine's busybox")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    umask = os.umask(0o077)
    try:
        return builtin_image(tmp_path_factory.mktemp("root"))
    finally:
        os.umask(umask)


def test_it_runs_and_has_every_applet(image):
    (layer,) = image.layers
    applets = subprocess.run([layer / "bin/busybox", "--list-full"], capture_output=True, text=True, check=True).stdout
    wanted = [layer / applet for applet in applets.split() if not applet.endswith("/busybox")]
    assert len(wanted) > 100
    assert {(layer / "bin/busybox").resolve()} == {path.resolve() for path in wanted}
    assert not any(os.readlink(path).startswith("/") for path in wanted)


def test_modes_do_not_depend_on_the_umask(image):
    (layer,) = image.layers
    modes = {
        name: stat.S_IMODE((layer / name).stat().st_mode)
        for name in ("", "tmp", "root", "bin", "usr/bin", "etc/passwd")
    }
    assert {"": 0o755, "tmp": 0o1777, "root": 0o700, "bin": 0o755, "usr/bin": 0o755, "etc/passwd": 0o644} == modes


def test_it_is_made_once(image):
    (layer,) = image.layers
    before = (layer / "bin/busybox").stat()
    assert image == builtin_image(layer.parents[1])
    after = (layer / "bin/busybox").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert [layer.name] == [path.name for path in layer.parent.iterdir()]


def test_several_at_once_make_one(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        images = pool.map(builtin_image, [tmp_path] * 4, chunksize=1)
    assert 1 == len(set(images))
    assert [images[0].layers[0].name] == [path.name for path in (tmp_path / "images").iterdir()]


def test_a_failure_midway_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(busybox, "_write", fail)
    with pytest.raises(EngineError, match="No space left on device"):
        builtin_image(tmp_path)
    assert [] == list((tmp_path / "images").iterdir())


def test_no_busybox_says_what_to_install(tmp_path):
    with pytest.raises(EngineError, match="apt-get install busybox-static"):
        builtin_image(tmp_path, [tmp_path / "busybox"])


def test_a_dynamic_busybox_is_refused(tmp_path):
    dynamic = tmp_path / "busybox"
    shutil.copy(os.path.realpath(sys.executable), dynamic)
    with pytest.raises(EngineError, match="not statically linked"):
        builtin_image(tmp_path, [dynamic])


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(100)])
def test_what_is_no_executable_is_not_static(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert not is_static_elf(path)


def test_the_hosts_own_busybox_is_static():
    found = [path for path in busybox.CANDIDATES if Path(path).exists()]
    assert found
    assert is_static_elf(found[0])
