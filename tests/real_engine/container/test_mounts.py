"""What the owner has mounted in a container, and the layer that is the owner's own."""

import os
import shutil
from pathlib import Path

import pytest

from real_engine.container.container import StartError
from real_engine.container.spec import ContainerSpec, Mount
from real_engine.errors import EngineError, InvalidParameter
from real_engine.linux import mounts as kernel

pytestmark = pytest.mark.root


@pytest.fixture
def source(tmp_path):
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "file").write_text("from the host\n")
    return directory


def test_a_directory_and_a_file(run, source):
    mounts = (Mount("bind", "/a/b/data", str(source)), Mount("bind", "/etc/one", str(source / "file")))
    assert (0, "from the host\nfrom the host\n") == run(
        "cat /a/b/data/file /etc/one; touch /a/b/data/new", mounts=mounts
    )
    assert (source / "new").exists()


def test_read_only_holds_for_what_is_mounted_beneath_too(run, source, tmp_path):
    (source / "deep").mkdir()
    kernel.mount("tmpfs", str(source / "deep"), "tmpfs")
    try:
        mounts = (Mount("bind", "/data", str(source), read_only=True),)
        status, output = run("touch /data/x; touch /data/deep/x", mounts=mounts)
        assert (1, 2) == (status, output.count("Read-only file system"))
        alone = (Mount("bind", "/data", str(source), recursive=False),)
        run("touch /data/deep/below", mounts=alone)
        assert [] == os.listdir(source / "deep")
    finally:
        kernel.umount2(str(source / "deep"))
    assert ["below"] == os.listdir(source / "deep")


def test_the_one_nearer_to_the_root_is_first(run, source):
    inner = Mount("bind", "/data/tmp/inner", str(source))
    status, output = run(
        "cat /data/tmp/inner/file; touch /data/tmp/mark",
        mounts=(inner, Mount("tmpfs", "/data/tmp", options={"mode": "700"})),
    )
    assert (0, "from the host\n") == (status, output)


def test_a_memory_file_system_as_it_was_asked_for(run):
    options = {"size": "1m", "mode": "1770", "uid": "12"}
    mounts = (Mount("tmpfs", "/fast", options=options, noexec=True, nosuid=True), Mount("tmpfs", "/home"))
    _, output = run(
        "grep ' /fast ' /proc/mounts; stat -c '%a %u' /fast; dd if=/dev/zero of=/fast/x bs=2M count=1", mounts=mounts
    )
    flags = output.split()[3].split(",")
    assert {"nosuid", "noexec", "size=1024k"} <= set(flags)
    assert "1770 12" in output
    assert "No space left" in output


def test_links_of_the_image_lead_nowhere_but_into_the_container(run, image, source, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "absolute").symlink_to(outside)
    (layer / "up").symlink_to("../../../../.." + str(outside))
    mounts = (Mount("bind", "/absolute/x", str(source)), Mount("bind", "/up/y", str(source / "file")))
    script = f"cat {outside}/x/file {outside}/y"
    assert (0, "from the host\nfrom the host\n") == run(script, mounts=mounts, layers=(*image.layers, layer))
    assert [] == list(outside.iterdir())


@pytest.mark.parametrize(("name", "target"), [("", "/etc/passwd"), ("file", "/etc")])
def test_a_directory_and_a_file_cannot_stand_for_one_another(run, source, leftovers, name, target):
    place = str(source / name)
    with pytest.raises(StartError) as raised:
        run("true", mounts=(Mount("bind", target, place),))
    assert raised.value.reason.startswith(f'error mounting "{place}" to rootfs at "{target}": not a directory: Are you')


def test_proc_is_not_to_be_covered(run, image, source, tmp_path, leftovers):
    with pytest.raises(StartError, match='"/proc/sys" cannot be mounted because it is inside /proc'):
        run("true", mounts=(Mount("bind", "/proc/sys", str(source)),))
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "innocent").symlink_to("/proc/sys")
    with pytest.raises(StartError, match="inside /proc"):
        run("true", mounts=(Mount("bind", "/innocent", str(source)),), layers=(*image.layers, layer))
    assert (0, "from the host\n") == run(
        "cat /proc/uptime", mounts=(Mount("bind", "/proc/uptime", str(source / "file")),)
    )


def test_what_does_not_exist_is_said_before_anything_is_made(run, leftovers):
    with pytest.raises(InvalidParameter, match="bind source path does not exist: /no/such"):
        run("true", mounts=(Mount("bind", "/x", "/no/such"),))


def test_the_hosts_devices_as_a_whole(run):
    _, output = run(
        "ls /dev; ls /dev/pts; echo gone > /dev/null && echo works", mounts=(Mount("bind", "/dev", "/dev"),)
    )
    assert set(os.listdir("/dev")) <= set(output.split())
    assert "works" in output


@pytest.mark.parametrize(("propagation", "seen"), [("rprivate", False), ("rslave", True), ("rshared", True)])
def test_propagation(engine, image, source, propagation, seen, leftovers):
    kernel.mount("tmpfs", str(source), "tmpfs")
    try:
        kernel.mount(None, str(source), None, kernel.MS_SHARED)
        (source / "later").mkdir()
        wait = "while [ ! -e /data/go ]; do sleep 0.02; done; [ -e /data/later/mark ]"
        spec = ContainerSpec(
            image.layers, ("sh", "-c", wait), mounts=(Mount("bind", "/data", str(source), propagation=propagation),)
        )
        with engine.start(spec) as container:
            kernel.mount("tmpfs", str(source / "later"), "tmpfs")
            (source / "later/mark").touch()
            (source / "go").touch()
            assert (0 if seen else 1) == container.wait(timeout_seconds=20)
        kernel.umount2(str(source / "later"))
    finally:
        kernel.umount2(str(source), kernel.MNT_DETACH)


@pytest.mark.parametrize("volatile", [False, True])
def test_an_upper_directory_of_the_owners_stays(engine, image, tmp_path, leftovers, volatile):
    directories = {"upper": tmp_path / "upper", "work": tmp_path / "work", "volatile": volatile}
    upper = directories["upper"]
    spec = ContainerSpec(image.layers, ("sh", "-c", "echo kept >> /file; rm -f /etc/group"), **directories)
    for _ in range(2):
        container = engine.create(spec, "0123456789ab")
        container.begin((0, 1, 2))
        container.complete()
        assert 0 == container.wait(timeout_seconds=20)
        container.remove()
    assert "kept\nkept\n" == (upper / "file").read_text()
    assert os.makedev(0, 0) == (upper / "etc/group").stat().st_rdev  # a whiteout
    assert (image.layers[0] / "etc/group").exists()


def test_an_id_that_is_in_use_is_refused_and_its_container_lives(engine, image, tmp_path, leftovers):
    spec = ContainerSpec(image.layers, ("sleep", "60"), upper=tmp_path / "upper", work=tmp_path / "work")
    first, second = (engine.create(spec, "0123456789ab") for _ in range(2))
    first.begin((0, 1, 2))
    first.complete()
    with pytest.raises(EngineError, match="File exists"):
        second.begin((0, 1, 2))
    second.remove()
    with pytest.raises(TimeoutError):
        first.wait(timeout_seconds=0.05)
    first.remove()


def test_an_init_reaps_and_passes_signals_on(run):
    if not any(shutil.which(name) for name in ("docker-init", "tini", "tini-static")):
        pytest.skip("no docker-init or tini is installed")
    status, output = run("cat /proc/1/cmdline | tr '\\0' ' '; echo $$; touch /sbin/docker-init", init=True)
    assert output.startswith("/sbin/docker-init -- sh -c")
    assert (1, True) == (status, "Read-only file system" in output)


def test_without_an_init_that_is_said(run, monkeypatch, leftovers):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EngineError, match="needs docker-init or tini"):
        run("true", init=True)


def test_host_files_are_not_followed_by_source_links_into_the_container(run, source, tmp_path):
    """The source is the host's to name: its own links are followed there."""
    (tmp_path / "link").symlink_to(source)
    assert (0, "from the host\n") == run("cat /data/file", mounts=(Mount("bind", "/data", str(tmp_path / "link")),))


def test_the_image_of_another_is_untouched(run, image):
    before = sorted(str(path) for path in Path(image.layers[0]).rglob("*"))
    run("true", mounts=(Mount("tmpfs", "/made/by/mount"),))
    assert before == sorted(str(path) for path in Path(image.layers[0]).rglob("*"))
