"""The image store: names, ids, parents; and what removing one takes along, as with Docker."""

import io
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from real_engine.errors import Conflict, EngineError, InvalidParameter, NotFound
from real_engine.images.blobs import digest_of
from real_engine.images.references import Reference
from real_engine.images.removal import chain_ids
from real_engine.images.saving import save, select
from real_engine.images.store import ImageStore

ref = Reference.parse
DIGEST = "sha256:" + "ab" * 32


def again(store):
    """The store as the next daemon finds it."""
    other = ImageStore(store.root.parent)
    other.recover()
    return other


def layer_names(store):
    return sorted(name for name in os.listdir(store.layers.root))


# --- names and ids ---------------------------------------------------------------------------------------------------


def test_an_image_is_its_configuration_and_layers(store, make_image):
    image = make_image({"a": b"12345"}, {"b": b"123"}, Cmd=["sh"], Labels={"k": "v"})
    assert digest_of(store.config_bytes(image.id)) == image.id
    assert ["a", "b"] == [os.listdir(layer)[0] for layer in image.layers]
    assert (8, "amd64", "linux", "2024-01-02T03:04:05Z", {"k": "v"}, "", 0) == (
        image.size,
        image.architecture,
        image.os,
        image.created,
        image.labels,
        image.parent,
        image.last_tagged,
    )
    assert image == again(store).resolve(image.id)


def test_a_configuration_is_kept_byte_for_byte(store):
    diff_id = store.layers.empty().diff_id
    data = b'{ "rootfs":{"type":"layers","diff_ids":["%b"]},  "os":"linux", "x": "\\u00fc" }\n' % diff_id.encode()
    image = store.create(data)
    assert digest_of(data) == image.id
    assert data == store.config_bytes(image.id)


def test_it_is_found_by_every_name_that_it_has(store, make_image):
    image = make_image({"a": b"a"})
    store.tag(image, ref("app"))
    image = store.tag(image, ref("reg.io:5000/x/app:2"))
    image = store.tag(image, ref(f"app@{DIGEST}"))
    digits = image.id[7:]
    for name in (
        "app",
        "app:latest",
        "docker.io/library/app",
        "library/app:latest",
        "reg.io:5000/x/app:2",
        f"app@{DIGEST}",
        f"app:whatever@{DIGEST}",
        image.id,
        digits,
        digits[:12],
        f"sha256:{digits[:8]}",
    ):
        assert image == store.resolve(name), name
    assert ("app:latest", "reg.io:5000/x/app:2") == image.repo_tags
    assert (f"app@{DIGEST}",) == image.repo_digests
    assert 0 < image.last_tagged
    assert image == again(store).resolve("app")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "No such image: nothing:latest"),
        ("nothing:1", "No such image: nothing:1"),
        ("abcdef", "No such image: abcdef:latest"),
        ("sha256:" + "0" * 64, "No such image: sha256:" + "0" * 64),
        ("0" * 64, "No such image: " + "0" * 64),
        ("q.io/a/b", "No such image: q.io/a/b:latest"),
    ],
)
def test_what_is_not_there_is_told_as_docker_tells_it(store, make_image, name, message):
    make_image({"a": b"a"})
    with pytest.raises(NotFound) as caught:
        store.resolve(name)
    assert message == str(caught.value)


@pytest.mark.parametrize("name", ["", "UPPER", "a:b:c", "-"])
def test_what_can_be_no_name_is_refused(store, name):
    with pytest.raises(InvalidParameter, match="invalid reference format"):
        store.resolve(name)


def test_the_beginning_of_several_ids_is_none(store, make_image):
    images = [make_image({"n": b"%d" % number}) for number in range(40)]
    first = [image for image in images if image.id[7] == images[0].id[7]]
    if len(first) > 1:
        with pytest.raises(NotFound):
            store.resolve(images[0].id[7:8])
    for image in images:
        assert image == store.resolve(image.id[7:30])


def test_a_name_stands_for_one_image_and_leaves_the_other(store, make_image):
    first, second = make_image({"a": b"1"}), make_image({"a": b"2"})
    store.tag(first, ref("app:1"))
    store.tag(second, ref("app:1"))
    assert second.id == store.resolve("app:1").id
    assert () == store.resolve(first.id).repo_tags


def test_a_name_is_looked_for_before_an_id(store, make_image):
    first, second = make_image({"a": b"1"}), make_image({"a": b"2"})
    store.tag(second, ref(first.id[7:19]))
    assert second.id == store.resolve(first.id[7:19]).id


def test_children_are_known(store, make_image):
    base = make_image({"a": b"1"})
    child = make_image(parent=base, Cmd=["x"])
    grandchild = make_image({"b": b"2"}, parent=child)
    assert [child.id] == [image.id for image in store.children(base.id)]
    assert [base.id] == [image.id for image in store.children("")]
    assert (base.id, child.id) == (child.parent, grandchild.parent)
    assert store.has_children(child.id)
    assert not store.has_children(grandchild.id)
    assert [grandchild.id] == [image.id for image in again(store).children(child.id)]


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"[]",
        b"{}",
        {"rootfs": []},
        {"rootfs": {"diff_ids": "sha256"}},
        {"rootfs": {"diff_ids": ["../x"]}},
        {"rootfs": {"diff_ids": []}, "config": [1]},
    ],
)
def test_what_is_no_configuration_is_refused(store, config):
    with pytest.raises(InvalidParameter):
        store.create(config)
    assert [] == store.images()


def test_a_layer_that_is_not_here_is_told(store):
    with pytest.raises(NotFound, match=DIGEST):
        store.create({"rootfs": {"diff_ids": [DIGEST]}})


def test_many_threads_create_and_name(store, make_image):
    failed = []

    def work(number):
        try:
            for turn in range(3):
                store.tag(make_image({"a": b"%d" % (number % 3)}), ref(f"app:{number}-{turn}"))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == failed
    assert 3 == len(store.images())
    assert 18 == sum(len(image.repo_tags) for image in again(store).images())


def test_the_layout_can_be_read_by_others(store, make_image):
    image = make_image({"a": b"a"})
    store.tag(image, ref("app:1"))
    index = json.loads((store.root / "index.json").read_bytes())
    (described,) = index["manifests"]
    assert "docker.io/library/app:1" == described["annotations"]["org.opencontainers.image.ref.name"]
    manifest = json.loads(store.blobs.read(described["digest"]))
    assert image.id == manifest["config"]["digest"]
    for blob in (manifest["config"], *manifest["layers"]):
        assert blob["size"] == store.blobs.size(blob["digest"])
    assert list(image.diff_ids) == [layer["digest"] for layer in manifest["layers"]]


# --- commit ----------------------------------------------------------------------------------------------------------


def test_a_commit_makes_a_child(store, make_image, tmp_path):
    base = make_image({"a": b"a"}, Env=["A=1"])
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper/new").write_bytes(b"new")
    image = store.commit(
        base,
        tmp_path / "upper",
        container_config={"Cmd": ["sh", "-c", "x"], "Env": ["A=1"]},
        author="me",
        comment="why",
        container_id="c" * 64,
        changes=["ENV B=2", 'CMD ["x"]'],
    )
    assert base.id == image.parent
    assert base.diff_ids == image.diff_ids[:-1]
    assert ["new"] == os.listdir(image.layers[-1])
    assert (["A=1", "B=2"], ["x"]) == (image.config["config"]["Env"], image.config["config"]["Cmd"])
    last = image.config["history"][-1]
    assert ("sh -c x", "me", "why") == (last["created_by"], last["author"], last["comment"])
    assert ("why", "me", "c" * 64) == (image.config["comment"], image.config["author"], image.config["container"])


def test_a_commit_of_nothing_has_no_layer(store, make_image, tmp_path):
    base = make_image({"a": b"a"})
    (tmp_path / "upper").mkdir()
    image = store.commit(base, tmp_path / "upper", container_config={"Cmd": ["sh"]})
    assert base.diff_ids == image.diff_ids
    assert image.config["history"][-1]["empty_layer"]


def test_a_change_that_is_wrong_makes_nothing(store, make_image, tmp_path):
    base = make_image({"a": b"a"})
    (tmp_path / "upper").mkdir()
    with pytest.raises(InvalidParameter, match="run is not a valid change command"):
        store.commit(base, tmp_path / "upper", container_config={}, changes=["RUN x"])
    assert [base.id] == [image.id for image in store.images()]


# --- removal ---------------------------------------------------------------------------------------------------------


def removed(store, name, *, containers=(), **options):
    """What removing gives, short: names, `I` for an image, `L` for a layer; and the events."""
    happened = []
    ids = {image.id for image in store.images()}
    records = store.remove(
        name,
        used_by=lambda image: [(c, running) for c, of, running in containers if of == image],
        happened=lambda action, image: happened.append(action),
        **options,
    )
    short = [record.get("Untagged") or ("I" if record["Deleted"] in ids else "L") for record in records]
    return short, happened


def test_the_last_name_takes_the_image_along(store, make_image):
    store.tag(make_image({"a": b"a"}, {"b": b"b"}), ref("app"))
    assert (["app:latest", "I", "L", "L"], ["untag", "delete"]) == removed(store, "app")
    assert [] == store.images()
    assert [] == layer_names(store)
    assert [] == list(store.blobs.digests())
    assert [] == again(store).images()


def test_one_name_of_several_goes_alone(store, make_image):
    image = make_image({"a": b"a"})
    for name in ("app", "app:2", f"app@{DIGEST}"):
        store.tag(image, ref(name))
    assert (["app:2"], ["untag"]) == removed(store, "app:2")
    assert (["app:latest", f"app@{DIGEST}", "I", "L"], ["untag", "delete"]) == removed(store, "app")


def test_an_id_takes_all_names_of_one_repository(store, make_image):
    image = make_image({"a": b"a"})
    for name in ("app", f"app@{DIGEST}"):
        store.tag(image, ref(name))
    assert (["app:latest", f"app@{DIGEST}", "I", "L"], ["untag", "untag", "delete"]) == removed(store, image.id[7:19])


def test_an_id_with_names_in_several_repositories_must_be_forced(store, make_image):
    image = make_image({"a": b"a"})
    store.tag(image, ref("app"))
    store.tag(image, ref("other"))
    short = image.id[7:19]
    with pytest.raises(Conflict) as caught:
        removed(store, short)
    assert f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories" == str(
        caught.value
    )
    assert (["app:latest", "other:latest", "I", "L"], ["delete"]) == removed(store, short, force=True)


def test_an_image_with_children_stays(store, make_image):
    base = make_image({"a": b"a"})
    store.tag(make_image({"b": b"b"}, parent=base), ref("child"))
    short = base.id[7:19]
    for force in (False, True):
        with pytest.raises(Conflict) as caught:
            removed(store, short, force=force)
        assert f"conflict: unable to delete {short} (cannot be forced) - image has dependent child images" == str(
            caught.value
        )
    store.tag(base, ref("base"))
    assert (["base:latest"], ["untag"]) == removed(store, "base")
    assert (["child:latest", "I", "L", "I", "L"], ["untag", "delete", "delete"]) == removed(store, "child")
    assert [] == store.images()


def test_without_pruning_the_image_below_stays(store, make_image):
    base = make_image({"a": b"a"})
    store.tag(make_image({"b": b"b"}, parent=base), ref("child"))
    assert (["child:latest", "I", "L"], ["untag", "delete"]) == removed(store, "child", prune=False)
    assert [base.id] == [image.id for image in store.images()]


def test_a_name_whose_image_a_container_uses_must_be_forced(store, make_image):
    image = store.tag(make_image({"a": b"a"}), ref("app"))
    containers = [("c" * 64, image.id, False)]
    short = image.id[7:19]
    with pytest.raises(Conflict) as caught:
        removed(store, "app", containers=containers)
    assert (
        'conflict: unable to remove repository reference "app" (must force) - '
        f"container {'c' * 12} is using its referenced image {short}"
    ) == str(caught.value)
    with pytest.raises(Conflict, match=f"must be forced.* image is being used by stopped container {'c' * 12}"):
        removed(store, short, containers=containers)
    assert (["app:latest", "I"], ["untag", "delete"]) == removed(store, "app", containers=containers, force=True)


def test_a_running_container_keeps_its_image(store, make_image):
    image = store.tag(make_image({"a": b"a"}), ref("app"))
    containers = [("c" * 64, image.id, True)]
    with pytest.raises(Conflict, match=r"\(cannot be forced\) - image is being used by running container c{12}$"):
        removed(store, image.id, containers=containers, force=True)
    assert (["app:latest"], ["untag"]) == removed(store, "app", containers=containers, force=True)
    assert [image.id] == [one.id for one in store.images()]


def test_the_layers_of_a_container_outlive_its_image(store, make_image):
    image = store.tag(make_image({"a": b"a"}), ref("app"))
    directory = image.layers[0]
    users = [directory]
    store.add_layer_user(lambda: users)
    removed(store, "app", containers=[("c" * 64, image.id, False)], force=True)
    assert (directory / "a").exists()
    assert 0 == store.collect()
    users.clear()
    assert 0 < store.collect()
    assert not directory.exists()


def test_a_layer_of_two_images_goes_with_the_second(store, make_image):
    store.tag(make_image({"a": b"a"}, Cmd=["1"]), ref("one"))
    store.tag(make_image({"a": b"a"}, Cmd=["2"]), ref("two"))
    assert (["one:latest", "I"], ["untag", "delete"]) == removed(store, "one")
    assert 1 == len(layer_names(store))
    assert (["two:latest", "I", "L"], ["untag", "delete"]) == removed(store, "two")
    assert [] == layer_names(store)


def test_chain_ids_depend_on_what_is_below():
    # OCI image-spec v1.1 config.md, "Layer ChainID"
    first, second = DIGEST, "sha256:" + "cd" * 32
    assert [] == chain_ids([])
    assert [first, digest_of(f"{first} {second}".encode())] == chain_ids([first, second])


# --- crashes ---------------------------------------------------------------------------------------------------------


def test_what_nothing_refers_to_is_removed_at_the_next_start(store, make_image, make_tar):
    image = store.tag(make_image({"a": b"a"}), ref("app"))
    store.layers.apply(io.BytesIO(make_tar({"lost": b"x"})))
    store.blobs.put(b"lost")
    other = again(store)
    assert [image.id] == [one.id for one in other.images()]
    assert [image.diff_ids[0][7:]] == layer_names(other)
    assert {image.id, image.diff_ids[0]} < set(other.blobs.digests())
    assert 3 == len(set(other.blobs.digests()))  # and the manifest that index.json names


@pytest.mark.parametrize("lost", ["config", "layer"])
def test_an_image_that_lost_a_part_is_removed_and_the_others_stay(store, make_image, lost):
    good, bad = make_image({"a": b"good"}), make_image({"a": b"bad"})
    store.tag(good, ref("good"))
    store.tag(bad, ref("bad"))
    if lost == "config":
        store.blobs.remove(bad.id)
    else:
        store.layers.remove(bad.diff_ids[0], though_new=True)
    other = again(store)
    assert [("good:latest",)] == [image.repo_tags for image in other.images()]
    with pytest.raises(NotFound):
        other.resolve("bad")


KILLED = """
import sys
from pathlib import Path
from real_engine.images.loading import load
from real_engine.images.store import ImageStore

load(ImageStore(Path(sys.argv[1])), sys.stdin.buffer)
"""


@pytest.mark.parametrize("part", [0.3, 0.7, 0.999])
def test_an_engine_that_is_killed_while_it_loads_leaves_nothing(store, make_image, tmp_path, part):
    files = {f"directory/file{number}": b"x" * 3000 for number in range(300)}
    store.tag(make_image(files, {"big": bytes(3_000_000)}), ref("app"))
    data = b"".join(save(store, select(store, ["app"])))
    root = tmp_path / "killed"
    root.mkdir()
    process = subprocess.Popen([sys.executable, "-c", KILLED, root], stdin=subprocess.PIPE)
    process.stdin.write(data[: int(len(data) * part)])
    process.stdin.flush()
    deadline = time.monotonic() + 20
    while not (root / "images/partial").exists() or not any((root / "images").rglob("partial/*")):
        if any((root / "images/blobs/sha256").glob("*")):
            break
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    process.stdin.close()
    left = ImageStore(root)
    left.recover()
    assert [] == left.images()
    assert [] == layer_names(left)
    assert [] == list(left.blobs.digests())
    assert [] == os.listdir(left.root / "partial")


def test_damaged_names_are_told_and_not_overwritten(store):
    path = store.root / "repositories.json"
    path.write_bytes(b'{"version": 1, "images"')
    with pytest.raises(EngineError, match=r"repositories\.json"):
        ImageStore(store.root.parent)
    assert b'{"version": 1, "images"' == path.read_bytes()


def test_a_full_disk_changes_no_name(store, make_image, monkeypatch):
    image = store.tag(make_image({"a": b"a"}), ref("app"))

    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("real_engine.images.repositories.write_durably", full)
    with pytest.raises(OSError, match="No space left"):
        store.tag(image, ref("other"))
    with pytest.raises(OSError, match="No space left"):
        store.remove("app")
    monkeypatch.undo()
    assert ("app:latest",) == store.resolve(image.id).repo_tags
    assert ("app:latest",) == again(store).resolve(image.id).repo_tags


# --- the built-in image ----------------------------------------------------------------------------------------------


def test_the_builtin_image_is_the_same_everywhere_and_made_once(store, tmp_path):
    image = store.ensure_builtin()
    assert ("onggi/busybox:latest",) == image.repo_tags
    assert ["sh"] == image.config["config"]["Cmd"]
    assert (image.layers[0] / "bin/sh").is_symlink()
    before = (store.root / "repositories.json").stat().st_mtime_ns
    assert image == store.ensure_builtin()
    assert before == (store.root / "repositories.json").stat().st_mtime_ns
    (tmp_path / "elsewhere").mkdir()
    assert image.id == ImageStore(tmp_path / "elsewhere").ensure_builtin().id
    assert [] == os.listdir(store.root.parent / "tmp")


def test_a_builtin_image_of_another_busybox_takes_the_name(store, tmp_path):
    old = store.ensure_builtin()
    copy = tmp_path / "busybox"
    copy.write_bytes((old.layers[0] / "bin/busybox").read_bytes() + b"\0")
    copy.chmod(0o755)
    new = store.ensure_builtin([copy])
    assert new.id != old.id
    assert new.id == store.resolve("onggi/busybox").id


def test_an_image_made_while_its_layer_is_removed_has_it_or_is_not_made(store, make_tar, monkeypatch):
    layer = store.layers.apply(io.BytesIO(make_tar({"file": b"data"})))
    configuration = {"os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}}
    first = store.create(configuration)
    made = []
    remove = store.layers.remove

    def remove_late(diff_id, **options):
        # Another thread's image comes after it was found that nobody needs the layer.
        made.append(store.create({**configuration, "author": "another"}))
        return remove(diff_id, **options)

    monkeypatch.setattr(store.layers, "remove", remove_late)
    store.remove(first.id)
    monkeypatch.undo()
    assert layer == store.layers.get(layer.diff_id)
    assert [made[0].id] == [image.id for image in store.images()]

    def lose(diff_id):
        raise NotFound(f"layer {diff_id} is not in the store")

    loaded = store._load
    monkeypatch.setattr(store, "_load", lambda data: (loaded(data), monkeypatch.setattr(store.layers, "get", lose))[0])
    with pytest.raises(NotFound, match="is not in the store"):
        store.create({**configuration, "author": "a third"})
    monkeypatch.undo()
    assert [made[0].id] == [image.id for image in store.images()]
    store.remove(made[0].id)
    assert [] == list(store.layers.diff_ids())
