import json
import os
from pathlib import Path
from typing import Any

from real_engine.registry import media_types
from real_engine.registry.garbage import collect

Client = Any  # see conftest.py
Serving = Any


def _contents(serving: Serving) -> int:
    return sum(path.is_file() for path in (serving.registry.storage.root / "blobs").rglob("*"))


def test_what_a_manifest_refers_to_stays(client: Client, serving: Serving) -> None:
    digest = client.put_image("me/app", "1", (b"one", b"two"))
    assert 4 == _contents(serving)
    assert (0, 0) == ((removed := collect(serving.registry.storage, 0)).blobs, removed.manifests)
    manifest = client("GET", f"/v2/me/app/manifests/{digest}").json
    for blob in (manifest["config"], *manifest["layers"]):
        assert 200 == client("GET", f"/v2/me/app/blobs/{blob['digest']}").status


def test_what_nothing_refers_to_goes(client: Client, serving: Serving) -> None:
    kept = client.put_image("me/app", "1", (b"shared", b"one"))
    gone = client.put_image("you/app", "1", (b"shared", b"other"))
    orphan = client.put_blob("me/app", b"nobody refers to me")
    assert 202 == client("DELETE", f"/v2/you/app/manifests/{gone}").status
    removed = collect(serving.registry.storage, 0)
    # The orphan, `other`, and the deleted manifest; the configuration and `shared` are the first image's too.
    assert 3 == removed.blobs
    assert removed.bytes > 0
    assert 404 == client("HEAD", f"/v2/me/app/blobs/{orphan}").status
    assert 200 == client("GET", f"/v2/me/app/manifests/{kept}").status
    assert ["me"] == [path.name for path in (serving.registry.storage.root / "repositories").iterdir()]
    assert 201 == client.put_manifest("you/app", "1", client.image("you/app")).status, "and it can be pushed again"


def test_blob_of_a_push_that_is_under_way_stays(client: Client, serving: Serving) -> None:
    digest = client.put_blob("me/app", b"my manifest is still to come")
    assert 0 == collect(serving.registry.storage).blobs
    assert 200 == client("HEAD", f"/v2/me/app/blobs/{digest}").status


def test_old_blob_that_was_asked_for_is_young_again(client: Client, serving: Serving) -> None:
    digest = client.put_blob("me/app", b"old")
    for path in serving.registry.storage.root.rglob("*"):
        if path.is_file():
            os.utime(path, (1, 1))
    assert 200 == client("HEAD", f"/v2/me/app/blobs/{digest}").status, "a client relies on it from here on"
    assert 0 == collect(serving.registry.storage).blobs
    assert 200 == client("HEAD", f"/v2/me/app/blobs/{digest}").status


def test_manifest_without_a_tag(client: Client, serving: Serving) -> None:
    old = client.put_image("me/app", "1", (b"old",))
    signature = client.image("me/app", (b"sig",)) | {
        "subject": {"mediaType": media_types.OCI_MANIFEST, "digest": old, "size": 1}
    }
    client.put_manifest("me/app", "sig", signature)
    client("DELETE", "/v2/me/app/manifests/sig")
    new = client.put_image("me/app", "2", (b"new",))
    size = len(client("GET", f"/v2/me/app/manifests/{new}").body)
    child = {"mediaType": media_types.OCI_MANIFEST, "digest": new, "size": size}
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [child]}
    client.put_manifest("me/app", "2", index)  # `new` has a tag only through the index now
    assert 0 == collect(serving.registry.storage, 0).manifests
    assert 0 == collect(serving.registry.storage, 0, untagged=True).manifests, "the signature's subject has a tag"
    client.put_image("me/app", "1", (b"newer",))
    assert 2 == collect(serving.registry.storage, 0, untagged=True).manifests
    assert [404, 200] == [client("HEAD", f"/v2/me/app/manifests/{digest}").status for digest in (old, new)]
    assert [] == client("GET", f"/v2/me/app/referrers/{old}").json["manifests"]


def test_what_a_crash_left_goes(client: Client, serving: Serving) -> None:
    digest = client.put_image("me/app", "1")
    algorithm, _, digits = digest.partition(":")
    left = serving.registry.storage.root / "blobs" / algorithm / digits[:2] / ".half.x"
    left.write_bytes(b"half")
    assert 1 == collect(serving.registry.storage, -1).blobs
    assert not left.exists()


def test_uploads_expire(client: Client, serving: Serving) -> None:
    old, young = (client("POST", "/v2/me/app/blobs/uploads/").headers["location"] for _ in range(2))
    directory: Path = serving.registry.storage.root / "uploads" / old.rsplit("/", 1)[1]
    os.utime(directory / "data", (1, 1))
    assert 1 == serving.registry.uploads.expire()
    assert [404, 204] == [client("GET", location).status for location in (old, young)]


def test_entry_is_one_that_json_can_read(client: Client, serving: Serving) -> None:
    digest = client.put_image("me/app", "1")
    entry = serving.registry.storage.root / "repositories/me/app/_manifests/sha256" / digest.removeprefix("sha256:")
    assert media_types.OCI_MANIFEST == json.loads(entry.read_bytes())["mediaType"]
