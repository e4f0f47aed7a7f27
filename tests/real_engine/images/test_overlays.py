"""What a container changed, and its file system mounted in no place: on the kernel's own overlayfs."""

import io
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from real_engine.images import tar_writer
from real_engine.images.changes import ADDED, DELETED, MODIFIED, Change, changes
from real_engine.images.layers import LayerStore
from real_engine.images.packing import write_tar
from real_engine.images.rootfs import mounted
from real_engine.images.tar_reader import CHARACTER, DIRECTORY, Entry, TarReader

pytestmark = pytest.mark.root

BASE = {
    "etc": None,
    "etc/passwd": b"root\n",
    "etc/group": b"root\n",
    "var": None,
    "var/log": None,
    "var/log/a": b"a",
    "var/log/b": b"b",
    "home": None,
    "same": b"same",
}


@pytest.fixture
def place(tmp_path, store, make_tar):
    """Layers and an upper directory with its work directory."""
    layer = store.layers.apply(io.BytesIO(make_tar(BASE)))
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    return [layer.directory], upper, work


def at(descriptor):
    """A path to what is beneath a mount that has no place."""
    return Path(f"/proc/self/fd/{descriptor}")


def change(place):
    lower, upper, work = place
    with mounted(lower, upper, work) as root:
        top = at(root)
        (top / "etc/passwd").write_bytes(b"changed\n")
        (top / "etc/group").unlink()
        (top / "etc/new").write_bytes(b"new")
        (top / "var/log/b").chmod(0o600)
        (top / "home").rmdir()
        (top / "home").mkdir()
        (top / "home/user").mkdir()
        (top / "link").symlink_to("/etc")
        shutil.rmtree(top / "var/log")


def test_a_mount_has_no_place_and_goes_with_its_descriptor(place):
    lower, upper, work = place
    before = Path("/proc/self/mountinfo").read_text()
    with mounted(lower, upper, work) as root:
        assert before == Path("/proc/self/mountinfo").read_text()
        assert b"root\n" == (at(root) / "etc/passwd").read_bytes()
        (at(root) / "written").write_bytes(b"x")
    assert b"x" == (upper / "written").read_bytes()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(root)


def test_what_is_written_can_be_mounted_again_unless_it_is_volatile(place):
    lower, upper, work = place
    for number in range(3):
        with mounted(lower, upper, work) as root:
            (at(root) / f"file{number}").write_bytes(b"x")
    with mounted(lower, upper, work, volatile=True) as root:
        assert {"file0", "file1", "file2"} < set(os.listdir(at(root) / "."))
    with pytest.raises(OSError, match=r"Invalid argument|exists"), mounted(lower, upper, work):
        pass


USER_NAMESPACE = """
import io, os, sys
from pathlib import Path
from real_engine.images import tar_writer
from real_engine.images.changes import changes
from real_engine.images.rootfs import mounted
from real_engine.images.store import ImageStore

root = Path(sys.argv[1])
store = ImageStore(root)
lower = [store.layers.apply(io.BytesIO((root / name).read_bytes())).directory for name in ("base", "top")]
upper, work = root / "upper", root / "work"
upper.mkdir()
work.mkdir()
with mounted(lower, upper, work) as tree:
    os.chdir(tree)
    assert ["dir"] == os.listdir("."), os.listdir(".")
    assert ["new"] == os.listdir("dir"), os.listdir("dir")
    os.unlink("dir/new")
    os.chdir("/")
assert [(0, "/dir"), (2, "/dir/new")] == [(one.kind, one.path) for one in changes(upper, lower)]
layer = store.layers.commit(upper)
with store.layers.tar(layer.diff_id) as file:
    sys.stdout.buffer.write(file.read())
"""


def test_root_of_a_user_namespace_has_layers_too(tmp_path):
    """It may set no trusted attribute and make no device, and has one id alone."""

    def tar(*entries):
        return b"".join([*map(tar_writer.header, entries), tar_writer.END])

    directory = Entry("dir", DIRECTORY, mode=0o755, uid=5, gid=6)
    null = Entry("null", CHARACTER, device=(1, 3))
    (tmp_path / "base").write_bytes(tar(directory, Entry("dir/old", uid=7), Entry("gone"), null))
    (tmp_path / "top").write_bytes(tar(directory, Entry("dir/.wh..wh..opq"), Entry("dir/new"), Entry(".wh.gone")))
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", USER_NAMESPACE, tmp_path]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    if done.returncode and b"unshare" in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr.decode().strip()}")
    assert 0 == done.returncode, done.stderr.decode()
    names = [entry.name for entry in TarReader(io.BytesIO(done.stdout))]
    assert ["dir/", "dir/.wh.new"] == names


@pytest.mark.parametrize("with_upper", [False, True])
def test_without_a_place_to_write_it_can_only_be_read(place, with_upper):
    lower, upper, work = place
    (upper / "on-top").write_bytes(b"x")
    options = {"upper": upper, "work": work, "read_only": True} if with_upper else {}
    with mounted(lower, **options) as root:
        assert with_upper == (at(root) / "on-top").exists()
        with pytest.raises(OSError, match="Read-only"):
            (at(root) / "x").write_bytes(b"x")


def test_devices_and_setuid_bits_of_an_image_mean_nothing_to_the_engine(place):
    lower, upper, work = place
    os.mknod(upper / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with mounted(lower, upper, work) as root, pytest.raises(PermissionError):
        (at(root) / "null").read_bytes()


def test_no_directory_at_all_is_refused():
    with pytest.raises(ValueError, match="needs a layer"), mounted([]):
        pass


def test_many_layers(place, store, make_tar):
    lower, upper, work = place
    many = [store.layers.apply(io.BytesIO(make_tar({f"layer{n}": b"", "top": b"%d" % n}))).directory for n in range(60)]
    with mounted([*lower, *many], upper, work) as root:
        assert b"59" == (at(root) / "top").read_bytes()
        assert 61 == len([name for name in os.listdir(at(root) / ".") if name.startswith(("layer", "top"))])


def test_changes_are_told(place):
    change(place)
    lower, upper, _ = place
    assert [
        Change(MODIFIED, "/etc"),
        Change(DELETED, "/etc/group"),
        Change(ADDED, "/etc/new"),
        Change(MODIFIED, "/etc/passwd"),
        Change(MODIFIED, "/home"),
        Change(ADDED, "/home/user"),
        Change(ADDED, "/link"),
        Change(MODIFIED, "/var"),
        Change(DELETED, "/var/log"),
    ] == changes(upper, lower)


def test_what_was_in_a_directory_that_was_made_anew_is_deleted(place):
    lower, upper, work = place
    with mounted(lower, upper, work) as root:
        shutil.rmtree(at(root) / "var")
        (at(root) / "var").mkdir()
        (at(root) / "var/log").write_bytes(b"a file now")
        shutil.rmtree(at(root) / "etc")
        (at(root) / "etc").mkdir()
    assert [
        Change(MODIFIED, "/etc"),
        Change(DELETED, "/etc/group"),
        Change(DELETED, "/etc/passwd"),
        Change(MODIFIED, "/var"),
        Change(MODIFIED, "/var/log"),
    ] == changes(upper, lower)


def test_nothing_changed_is_nothing_told(place):
    lower, upper, work = place
    with mounted(lower, upper, work) as root:
        assert b"same" == (at(root) / "same").read_bytes()
    assert [] == changes(upper, lower)


def test_a_link_in_a_layer_is_not_followed_when_changes_are_compared(place, tmp_path):
    lower, upper, _ = place
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"")
    (lower[0] / "out").symlink_to(tmp_path / "outside")
    (upper / "out").mkdir()
    (upper / "out/secret").write_bytes(b"")
    assert [Change(MODIFIED, "/out"), Change(ADDED, "/out/secret")] == changes(upper, lower)


def merged(layers):
    """All that can be seen of layers: {name: (kind, mode, data)}."""
    with mounted(layers) as tree:
        root = os.open(".", os.O_RDONLY, dir_fd=tree)
        data = b"".join(write_tar(root))
        os.close(root)
    reader = TarReader(io.BytesIO(data))
    found = {}
    for entry in reader:
        found[entry.name] = (entry.kind, entry.mode, entry.link, b"".join(piece for _, piece in reader.pieces()))
    return found


def test_a_committed_layer_shows_what_the_container_saw(place, store):
    change(place)
    lower, upper, _ = place
    layer = store.layers.commit(upper)
    assert merged([*lower, upper]) == merged([*lower, layer.directory])
    assert "etc/group" not in merged([*lower, layer.directory])


SCRIPT = """
echo new > /etc/new; rm /etc/group; echo more >> /etc/passwd; chmod 600 /var/log/b; touch /var/log/c
rm -r /var/spool; mkdir /var/spool; rm -r /var/spool; echo file > /var/spool
rm -r /home; mkdir -p /home/user/deep; ln -s /etc /link; rm -r /tmp; mkdir /tmp; echo x > /tmp/x
mkdir -p /a/b/c; echo x > /a/b/c/d; mv /same /moved
"""


@pytest.mark.peer
def test_docker_diff_tells_the_same(peer, tmp_path):
    from daemons import busybox_tar

    files = {"var/log/b": b"b", "same": b"same", "etc/fstab": b"none", "home/x": b"x"}
    peer("import", "-", "diff:base", given=busybox_tar(tmp_path))
    name = peer("create", "--network", "none", "diff:base", "sh", "-c", SCRIPT).strip()
    for path, data in files.items():
        (tmp_path / "file").write_bytes(data)
        peer("cp", str(tmp_path / "file"), f"{name}:/{path}")
    image = peer("commit", name, "diff:more").strip()
    peer("rm", name)
    name = peer("run", "-d", "--network", "none", image, "sh", "-c", SCRIPT).strip()
    peer("wait", name)
    data = peer.inspect(name)["GraphDriver"]["Data"]
    lower = [Path(path) for path in reversed(data["LowerDir"].split(":"))]
    letters = {MODIFIED: "C", ADDED: "A", DELETED: "D"}
    ours = [f"{letters[one.kind]} {one.path}" for one in changes(Path(data["UpperDir"]), lower)]
    theirs = peer("diff", name).splitlines()
    peer("rm", name)
    assert sorted(theirs) == sorted(ours)
    assert len(theirs) > 15


@pytest.mark.peer
def test_docker_loads_our_layer_and_we_theirs(peer, store, place, tmp_path):
    """A layer with whiteouts that we made means the same to Docker."""
    change(place)
    lower, upper, _ = place
    layer = store.layers.commit(upper)
    base = LayerStore(tmp_path / "other", store.blobs)
    peer("import", "-", "layers:base", given=store.layers.tar(f"sha256:{lower[0].parent.name}").read())
    assert base.marks == store.layers.marks
    from real_engine.images.saving import save, select

    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{lower[0].parent.name}", layer.diff_id]},
    }
    image = store.create(config)
    peer("load", given=b"".join(save(store, select(store, [image.id]))))
    name = peer("create", image.id).strip()
    exported = subprocess.run(["docker", "-H", peer.host, "export", name], capture_output=True, check=True).stdout
    peer("rm", name)
    reader = TarReader(io.BytesIO(exported))
    theirs = {entry.name: b"".join(piece for _, piece in reader.pieces()) for entry in reader}
    for made in (".dockerenv", "dev/", "dev/console", "dev/pts/", "dev/shm/", "proc/", "sys/", "etc/mtab"):
        theirs.pop(made, None)
    for mounted_over in ("etc/hostname", "etc/hosts", "etc/resolv.conf"):
        theirs.pop(mounted_over, None)
    ours = {name: value[3] for name, value in merged([*lower, layer.directory]).items()}
    assert ours == theirs
