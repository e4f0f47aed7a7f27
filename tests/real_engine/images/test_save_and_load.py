"""Archives of images: what is saved is loaded the same, here and by others, and a lying archive leaves nothing."""

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile

import pytest
import zstandard

from real_engine.errors import EngineError, InvalidParameter, NotFound
from real_engine.images.blobs import digest_of
from real_engine.images.importing import import_tar
from real_engine.images.loading import load
from real_engine.images.references import Reference
from real_engine.images.saving import save, select
from real_engine.images.store import ImageStore

ref = Reference.parse
FILES = {"etc": None, "etc/hostname": b"onggi\n", "big": b"0123456789" * 20_000}


def in_index(store: ImageStore) -> set[str]:
    """The manifests that the store's index.json names."""
    return {one["digest"] for one in json.loads((store.root / "index.json").read_bytes())["manifests"]}


@pytest.fixture
def other(tmp_path):
    """Another, empty store."""
    (tmp_path / "other").mkdir()
    return ImageStore(tmp_path / "other")


def saved(store, *names):
    return b"".join(save(store, select(store, names)))


def take(store, data, **options):
    return load(store, io.BytesIO(data), **options)


def archive(files):
    """A tar of files; a value that is a str is a symbolic link's target."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(data, str):
                member.type, member.linkname = tarfile.SYMTYPE, data
                tar.addfile(member)
                continue
            if not isinstance(data, bytes):
                data = json.dumps(data).encode()
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def is_empty(store):
    return (
        [] == store.images()
        and [] == list(store.blobs.digests())
        and [] == os.listdir(store.layers.root)
        and [] == os.listdir(store.root / "partial")
    )


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_what_is_saved_is_loaded_the_same(store, other, make_image, compress):
    image = make_image(FILES, {"more": b"x"}, Cmd=["sh"])
    store.tag(image, ref("app:1"))
    store.tag(image, ref("reg.io/app:2"))
    (loaded,) = take(other, compress(saved(store, "app:1", "reg.io/app:2")))
    assert image.id == loaded.image.id
    assert (
        ("app:1", "reg.io/app:2") == other.resolve(image.id).repo_tags == tuple(r.familiar for r in loaded.references)
    )
    assert image.diff_ids == loaded.image.diff_ids
    assert FILES["big"] == (loaded.image.layers[0] / "big").read_bytes()
    assert saved(store, "app:1") == saved(other, "app:1")
    assert not (set(other.blobs.digests()) - {image.id, *image.diff_ids} - in_index(other))


def test_a_name_alone_is_all_its_tags_and_an_id_none(store, make_image):
    first, second = make_image({"a": b"1"}), make_image({"a": b"2"})
    for image, name in ((first, "app:1"), (first, "app:one"), (second, "app:2"), (second, "else:2")):
        store.tag(image, ref(name))
    tags = {one.image.id: [tag.familiar for tag in one.tags] for one in select(store, ["app"])}
    assert {first.id: ["app:1", "app:one"], second.id: ["app:2"]} == tags
    assert [[]] == [one.tags for one in select(store, [first.id[7:19]])]
    assert [[]] == [one.tags for one in select(store, [first.id])]
    with pytest.raises(NotFound, match="reference does not exist"):
        select(store, ["app:3"])
    with pytest.raises(NotFound, match="No such image: nothing"):
        select(store, ["nothing"])
    with pytest.raises(InvalidParameter):
        select(store, [])


def test_an_image_that_is_removed_while_it_is_saved_is_saved_whole_and_then_gone(store, other, make_image):
    store.tag(make_image(FILES), ref("app"))
    whole = saved(store, "app")
    pieces = save(store, select(store, ["app"]))
    first = next(pieces)
    store.remove("app")
    assert not is_empty(store)
    assert whole == first + b"".join(pieces)
    assert is_empty(store)
    assert 1 == len(take(other, whole))


def test_a_shared_layer_is_in_the_archive_once(store, make_image):
    base = make_image(FILES)
    for number in range(3):
        store.tag(make_image(parent=base, Cmd=[str(number)]), ref(f"app:{number}"))
    with tarfile.open(fileobj=io.BytesIO(saved(store, "app"))) as tar:
        names = tar.getnames()
    assert len(names) == len(set(names))
    assert 1 == names.count(f"blobs/sha256/{base.diff_ids[0][7:]}")


def test_a_pulled_image_is_saved_as_plain_layers(store, other, make_tar):
    plain = make_tar(FILES)
    packed = gzip.compress(plain)
    blob = store.blobs.put(packed, "application/vnd.oci.image.layer.v1.tar+gzip")
    store.layers.apply(io.BytesIO(packed), expected_diff_id=digest_of(plain), blob=blob)
    image = store.create({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(plain)]}})
    (loaded,) = take(other, saved(store, image.id))
    assert image.id == loaded.image.id
    assert () == loaded.references


def test_a_layer_that_is_here_is_neither_read_nor_told(store, other, make_image):
    store.tag(make_image(FILES), ref("app"))
    data = saved(store, "app")
    told = []
    take(other, data, progress=lambda *step: told.append(step))
    assert told[-1][1] == told[-1][2]
    told.clear()
    take(other, data, progress=lambda *step: told.append(step))
    assert [] == told


def test_a_name_that_another_image_has_is_told(store, other, make_image):
    store.tag(make_image({"a": b"1"}), ref("app"))
    first = take(other, saved(store, "app"))[0].image
    store.tag(make_image({"a": b"2"}), ref("app"))
    (second,) = take(other, saved(store, "app"))
    assert ((ref("app:latest"), first.id),) == second.replaced
    assert () == other.resolve(first.id).repo_tags


def classic(make_tar, **changed):
    """What `docker save` wrote before version 25."""
    layer = make_tar(FILES)
    config = {"os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]}, "config": {"Cmd": ["sh"]}}
    files = {
        "abc/VERSION": b"1.0",
        "abc/json": {},
        "abc/layer.tar": layer,
        "config.json": config,
        "manifest.json": [{"Config": "config.json", "RepoTags": ["app:1"], "Layers": ["abc/layer.tar"]}],
        "repositories": {"app": {"1": "abc"}},
    }
    return files | changed


def test_a_classic_archive_and_its_leftovers_are_gone(store, make_tar):
    (loaded,) = take(store, archive(classic(make_tar)))
    assert ("app:1",) == loaded.image.repo_tags
    assert {loaded.image.id, *loaded.image.diff_ids} == set(store.blobs.digests()) - in_index(store)


def test_links_within_the_archive_are_followed(store, make_tar):
    files = classic(make_tar)
    files["abc/layer.tar"], files["real/layer.tar"] = "../real/layer.tar", files["abc/layer.tar"]
    assert 1 == len(take(store, archive(files)))


def test_a_compressed_layer_in_a_classic_archive(store, make_tar):
    for number, compress in enumerate((gzip.compress, lzma.compress)):
        files = classic(make_tar)
        plain = make_tar({"n": b"%d" % number})
        files["abc/layer.tar"] = compress(plain)
        files["config.json"] = {"os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(plain)]}}
        (loaded,) = take(store, archive(files))
        with store.layers.tar(loaded.image.diff_ids[0]) as file:
            assert plain == file.read()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"manifest.json": b"{"}, "manifest.json is no JSON"),
        ({"manifest.json": {}}, "manifest.json is no list"),
        ({"manifest.json": [1]}, "no object"),
        ({"manifest.json": [{"Config": "nothing.json"}]}, "nothing.json is not in it"),
        ({"manifest.json": [{"Config": 5}]}, "no text"),
        ({"manifest.json": [{"Config": "../../etc/passwd"}]}, "leads out of it"),
        ({"manifest.json": [{"Config": "/etc/passwd"}]}, "leads out of it"),
        ({"manifest.json": [{"Config": "config.json", "Layers": []}]}, "expected 1, got 0"),
        ({"manifest.json": [{"Config": "config.json", "Layers": ["abc/VERSION"]}]}, "tar|EOF"),
        ({"manifest.json": [{"Config": "config.json", "Layers": ["loop"]}], "loop": "loop"}, "loop is not in it"),
        ({"config.json": b"no json"}, "no JSON"),
        ({"config.json": {"os": "linux"}}, "no RootFS key"),
        ({"config.json": {"os": "windows", "rootfs": {}}}, "cannot load windows image on linux"),
        ({"config.json": {"rootfs": {"diff_ids": ["sha256:" + "0" * 64]}}}, "expected sha256:0000"),
        ({"config.json": {"rootfs": {"diff_ids": ["../x"]}}}, "no diff id"),
        ({"../outside": b"x"}, "leads out of it"),
        ({"abs": "/etc/passwd", "manifest.json": [{"Config": "abs"}]}, "leads out|not in it"),
        ({"esc": "../../etc/passwd"}, "leads out of it"),
        (
            {"manifest.json": [{"Config": "config.json", "Layers": ["abc/layer.tar"], "RepoTags": ["BAD"]}]},
            "must be lowercase",
        ),
        (
            {"manifest.json": [{"Config": "config.json", "Layers": ["abc/layer.tar"], "RepoTags": ["app"]}]},
            "invalid tag",
        ),
    ],
)
def test_a_lying_archive_is_refused_and_leaves_nothing(store, make_tar, changed, message):
    with pytest.raises(EngineError, match=message):
        take(store, archive(classic(make_tar, **changed)))
    assert is_empty(store)


@pytest.mark.parametrize("data", [b"", b"x" * 3000, gzip.compress(b"x" * 3000), bytes(1024)])
def test_what_is_no_archive_of_images_is_refused(store, data):
    with pytest.raises(InvalidParameter):
        take(store, data)
    assert is_empty(store)


def test_a_cut_off_archive_leaves_nothing(store, other, make_image):
    store.tag(make_image(FILES), ref("app"))
    data = saved(store, "app")
    for cut in (600, 5000, 100_000, len(data) // 2):
        with pytest.raises(InvalidParameter):
            take(other, data[:cut])
        assert is_empty(other)


# --- OCI layouts -----------------------------------------------------------------------------------------------------


def layout(make_tar, *, spoil="", annotations=None, nested=False):
    """An OCI image layout as an archive."""
    layer = gzip.compress(make_tar(FILES))
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [digest_of(make_tar(FILES))]}}
    ).encode()

    def described(data, media_type, **more):
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": described(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [described(layer, "application/vnd.oci.image.layer.v1.tar+gzip")],
        }
    ).encode()
    blobs = [layer, config, manifest]
    top = described(manifest, "application/vnd.oci.image.manifest.v1+json")
    if nested:
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
        strange = dict(top, digest="sha256:" + "0" * 64, platform={"os": "linux", "architecture": "strange"})
        inner = json.dumps(
            {"manifests": [strange, {**top, "platform": {"os": "linux", "architecture": machine}}]}
        ).encode()
        blobs.append(inner)
        top = described(inner, "application/vnd.oci.image.index.v1+json")
    top["annotations"] = annotations or {}
    files = {"oci-layout": {"imageLayoutVersion": "1.0.0"}, "index.json": {"schemaVersion": 2, "manifests": [top]}}
    for number, data in enumerate(blobs):
        files[f"blobs/sha256/{digest_of(data)[7:]}"] = data + b" " if spoil == str(number) else data
    return archive(files)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("annotations", "names"),
    [
        ({}, ()),
        ({"org.opencontainers.image.ref.name": "latest"}, ()),
        ({"org.opencontainers.image.ref.name": "app:1"}, ("app:1",)),
        ({"org.opencontainers.image.ref.name": "1", "io.containerd.image.name": "docker.io/library/app:1"}, ("app:1",)),
    ],
)
def test_an_oci_layout(store, make_tar, annotations, names, nested):
    (loaded,) = take(store, layout(make_tar, annotations=annotations, nested=nested))
    assert names == loaded.image.repo_tags
    assert FILES["big"] == (loaded.image.layers[0] / "big").read_bytes()
    manifest = store.manifest(loaded.image.id)
    assert manifest is not None
    assert (
        "application/vnd.oci.image.layer.v1.tar+gzip" == store.layers.archives(loaded.image.diff_ids[0])[0].media_type
    )
    assert store.blobs.has(manifest.digest)


@pytest.mark.parametrize("spoil", ["0", "1", "2"])
def test_a_blob_that_is_not_what_its_name_says_is_refused(store, make_tar, spoil):
    with pytest.raises(EngineError, match="not what its name says"):
        take(store, layout(make_tar, spoil=spoil))
    assert is_empty(store)


# --- import ----------------------------------------------------------------------------------------------------------


def test_an_import_is_one_layer(store, make_tar):
    image = import_tar(
        store,
        io.BytesIO(gzip.compress(make_tar(FILES))),
        architecture="arm64",
        comment="why",
        changes=["CMD sh", "ENV A=1\nEXPOSE 80"],
        variant="v8",
    )
    assert [digest_of(make_tar(FILES))] == list(image.diff_ids)
    assert (["/bin/sh", "-c", "sh"], ["A=1"], {"80/tcp": {}}) == tuple(
        image.config["config"][key] for key in ("Cmd", "Env", "ExposedPorts")
    )
    assert ("arm64", "v8", "why") == tuple(image.config[key] for key in ("architecture", "variant", "comment"))
    assert list(image.config) == sorted(image.config)  # as Docker writes it


def test_an_import_with_a_wrong_change_makes_nothing(store, make_tar):
    with pytest.raises(InvalidParameter, match="copy is not a valid change command"):
        import_tar(store, io.BytesIO(make_tar(FILES)), architecture="amd64", changes=["COPY a b"])
    assert is_empty(store)


# --- others ----------------------------------------------------------------------------------------------------------


def skopeo(*arguments):
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed: make peers")
    done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.peer
def test_skopeo_reads_ours_both_ways_and_we_read_its(store, other, make_image, tmp_path):
    image = make_image(FILES, {"more": b"x"}, Cmd=["sh"])
    store.tag(image, ref("app:1"))
    path = tmp_path / "ours.tar"
    path.write_bytes(saved(store, "app:1"))
    for source in (f"docker-archive:{path}:app:1", f"oci-archive:{path}:1"):
        assert list(image.diff_ids) == json.loads(skopeo("inspect", source))["Layers"]
    assert list(image.diff_ids) == json.loads(skopeo("inspect", f"oci:{store.root}:docker.io/library/app:1"))["Layers"]
    skopeo("copy", f"docker-archive:{path}:app:1", f"oci-archive:{tmp_path}/oci.tar:app:2")
    skopeo("copy", f"docker-archive:{path}:app:1", f"docker-archive:{tmp_path}/docker.tar:app:3")
    for name in ("oci", "docker"):
        (loaded,) = take(other, (tmp_path / f"{name}.tar").read_bytes())
        assert image.diff_ids == loaded.image.diff_ids
    assert {"app:2", "app:3"} == {tag for one in other.images() for tag in one.repo_tags}


@pytest.mark.peer
def test_docker_loads_ours_and_we_load_dockers(store, other, peer, make_image):
    image = make_image(FILES, {"more": b"x"}, Cmd=["sh"])
    store.tag(image, ref("saved:1"))
    assert "Loaded image: saved:1\n" == peer("load", given=saved(store, "saved:1"))
    theirs = peer.inspect("saved:1")
    assert (image.id, list(image.diff_ids)) == (theirs["Id"], theirs["RootFS"]["Layers"])
    assert image.size == theirs["Size"]
    data = subprocess.run(["docker", "-H", peer.host, "save", "saved:1"], capture_output=True, check=True).stdout
    (loaded,) = take(other, data)
    assert image.id == loaded.image.id
    assert ("saved:1",) == loaded.image.repo_tags
