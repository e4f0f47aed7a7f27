"""Conformance: the endpoints of distribution-spec 1.1 in the order of its table, as a client meets them."""

import base64
import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.registry import media_types
from real_engine.registry.names import sha256
from real_engine.registry.passwords import Passwords, hash_password
from real_engine.registry.ranges import byte_range

Client = Any  # a client that shows the very headers, and a registry that is served: see conftest.py
Serving = Any
NOTHING = "sha256:" + "0" * 64
CONTENT = b"".join(number.to_bytes(4, "big") for number in range(2560))  # 10240 bytes, no two places alike


def digest_of(content: bytes) -> str:
    return str(sha256(content))


def test_base_says_which_api_it_is(client: Client) -> None:
    answer = client("GET", "/v2/")
    assert (200, "registry/2.0") == (answer.status, answer.headers["docker-distribution-api-version"])


# Pulling


def test_blob_comes_with_its_digest_and_length(client: Client) -> None:
    digest = client.put_blob("me/app", CONTENT)
    got, head = (client(method, f"/v2/me/app/blobs/{digest}") for method in ("GET", "HEAD"))
    assert CONTENT == got.body
    assert b"" == head.body
    for answer in (got, head):
        assert 200 == answer.status
        assert str(len(CONTENT)) == answer.headers["content-length"]
        assert digest == answer.headers["docker-content-digest"]


def test_blob_that_is_not_there(client: Client) -> None:
    answer = client("GET", f"/v2/me/app/blobs/{NOTHING}")
    assert (404, "BLOB_UNKNOWN") == (answer.status, answer.code)
    assert 404 == client("HEAD", f"/v2/me/app/blobs/{NOTHING}").status
    digest = client.put_blob("me/app", CONTENT)
    assert 404 == client("GET", f"/v2/someone/else/blobs/{digest}").status, "a blob belongs to its repository"


def test_digest_that_is_none(client: Client) -> None:
    for bad in ("sha256:zz", "md5:" + "0" * 32, "..%2f..%2fetc", "sha256:" + "A" * 64):
        answer = client("GET", f"/v2/me/app/blobs/{bad}")
        assert answer.status in (400, 404), bad
        assert answer.code in ("DIGEST_INVALID", "UNSUPPORTED")


@pytest.mark.parametrize(
    ("header", "status", "expected"),
    [
        ("bytes=0-9", 206, CONTENT[:10]),
        ("bytes=100-", 206, CONTENT[100:]),
        ("bytes=-5", 206, CONTENT[-5:]),
        ("bytes=10000-99999", 206, CONTENT[10000:]),
        ("bytes=7-3", 200, CONTENT),
        ("bytes=0-1,5-6", 200, CONTENT),
        ("lines=1-2", 200, CONTENT),
    ],
)
def test_range_of_a_blob(client: Client, header: str, status: int, expected: bytes) -> None:
    digest = client.put_blob("me/app", CONTENT)
    answer = client("GET", f"/v2/me/app/blobs/{digest}", Range=header)
    assert (status, expected) == (answer.status, answer.body)
    if status == 206:
        first = CONTENT.index(expected)
        assert f"bytes {first}-{first + len(expected) - 1}/{len(CONTENT)}" == answer.headers["content-range"]


def test_range_beyond_the_end(client: Client) -> None:
    digest = client.put_blob("me/app", CONTENT)
    answer = client("GET", f"/v2/me/app/blobs/{digest}", Range=f"bytes={len(CONTENT)}-")
    assert (416, f"bytes */{len(CONTENT)}") == (answer.status, answer.headers["content-range"])


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
def test_range_is_what_python_would_slice(size: int, first: int, last: int) -> None:
    content = bytes(size)
    part = byte_range(f"bytes={first}-{last}", size)
    if last < first:
        assert part is None
    else:
        assert part is not None
        assert len(content[first : last + 1]) == len(part)
        assert all(0 <= position < size for position in part)


def test_conditional_requests(client: Client) -> None:
    digest = client.put_blob("me/app", CONTENT)
    etag = client("HEAD", f"/v2/me/app/blobs/{digest}").headers["etag"]
    assert 304 == client("GET", f"/v2/me/app/blobs/{digest}", If_None_Match=etag).status
    assert 200 == client("GET", f"/v2/me/app/blobs/{digest}", If_None_Match='"other"').status
    assert 206 == client("GET", f"/v2/me/app/blobs/{digest}", Range="bytes=0-3", If_Range=etag).status
    assert 200 == client("GET", f"/v2/me/app/blobs/{digest}", Range="bytes=0-3", If_Range='"other"').status
    client.put_image("me/app", "1")
    etag = client("GET", "/v2/me/app/manifests/1").headers["etag"]
    assert 304 == client("GET", "/v2/me/app/manifests/1", If_None_Match=etag).status


def test_manifest_by_tag_and_by_digest(client: Client) -> None:
    digest = client.put_image("me/app", "1")
    for reference in ("1", digest):
        for method in ("GET", "HEAD"):
            answer = client(method, f"/v2/me/app/manifests/{reference}")
            assert (200, digest) == (answer.status, answer.headers["docker-content-digest"])
            assert media_types.OCI_MANIFEST == answer.headers["content-type"]
            assert digest == (digest_of(answer.body) if method == "GET" else digest)


def test_manifest_that_is_not_there(client: Client) -> None:
    client.put_image("me/app", "1")
    for reference in ("2", NOTHING, ".not-a-tag"):
        answer = client("GET", f"/v2/me/app/manifests/{reference}")
        assert (404, "MANIFEST_UNKNOWN") == (answer.status, answer.code)
    assert "MANIFEST_UNKNOWN" == client("GET", "/v2/nobody/manifests/1").code, "as Docker's registry has it"


def test_accept_decides_what_is_given(client: Client) -> None:
    image = client.put_image("me/app", "1")
    size = len(client("GET", f"/v2/me/app/manifests/{image}").body)
    child = {"mediaType": media_types.OCI_MANIFEST, "digest": image, "size": size}
    index = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [child | {"platform": {"os": "linux", "architecture": "amd64"}}],
    }
    assert 201 == client.put_manifest("me/app", "all", index).status
    takes = f"{media_types.DOCKER_MANIFEST};q=0.5, {media_types.OCI_MANIFEST}"
    answer = client("GET", "/v2/me/app/manifests/all", Accept=takes)
    assert (200, image) == (answer.status, answer.headers["docker-content-digest"]), "an old client gets linux/amd64"
    answer = client("GET", "/v2/me/app/manifests/all", Accept="*/*")
    assert media_types.OCI_INDEX == answer.headers["content-type"]
    refused = client("GET", "/v2/me/app/manifests/1", Accept=media_types.DOCKER_MANIFEST)
    assert (404, "MANIFEST_UNKNOWN") == (refused.status, refused.code)
    refused = client("GET", "/v2/me/app/manifests/1", Accept=f"{media_types.OCI_MANIFEST};q=0, text/html")
    assert 404 == refused.status


# Pushing blobs


def _begin(client: Client, name: str = "me/app") -> str:
    answer = client("POST", f"/v2/{name}/blobs/uploads/")
    assert (202, "0-0") == (answer.status, answer.headers["range"])
    return answer.headers["location"]


def test_upload_by_post_and_put(client: Client) -> None:
    digest = digest_of(CONTENT)
    answer = client("PUT", f"{_begin(client)}?digest={digest}", CONTENT)
    assert (201, digest) == (answer.status, answer.headers["docker-content-digest"])
    assert CONTENT == client("GET", answer.headers["location"]).body


def test_upload_in_chunks(client: Client) -> None:
    location = _begin(client)
    for first in range(0, len(CONTENT), 3000):
        chunk = CONTENT[first : first + 3000]
        last = first + len(chunk) - 1
        answer = client("PATCH", location, chunk, Content_Range=f"{first}-{last}")
        assert (202, f"0-{last}") == (answer.status, answer.headers["range"])
        location = answer.headers["location"]
        status = client("GET", location)
        assert (204, f"0-{last}") == (status.status, status.headers["range"])
    answer = client("PUT", f"{location}?digest={digest_of(CONTENT)}")
    assert 201 == answer.status
    assert CONTENT == client("GET", f"/v2/me/app/blobs/{digest_of(CONTENT)}").body
    assert "BLOB_UPLOAD_UNKNOWN" == client("GET", location).code


def test_last_chunk_may_come_with_put(client: Client) -> None:
    location = client("PATCH", _begin(client), CONTENT[:4000], Content_Range="0-3999").headers["location"]
    answer = client(
        "PUT",
        f"{location}?digest={digest_of(CONTENT)}",
        CONTENT[4000:],
        Content_Range=f"4000-{len(CONTENT) - 1}",
    )
    assert 201 == answer.status


@pytest.mark.parametrize("content_range", ["1-10", "5-14", "11-20"])
def test_gap_between_chunks(client: Client, content_range: str) -> None:
    location = client("PATCH", _begin(client), b"0123456789", Content_Range="0-9").headers["location"]
    answer = client("PATCH", location, b"abcdefghij", Content_Range=content_range)
    assert (416, "RANGE_INVALID") == (answer.status, answer.code)
    assert "0-9" == client("GET", location).headers["range"], "nothing was added"


@pytest.mark.parametrize("content_range", ["0-3", "5-2", "a-b"])
def test_range_that_contradicts_the_length(client: Client, content_range: str) -> None:
    answer = client("PATCH", _begin(client), b"0123456789", Content_Range=content_range)
    assert answer.status in (400, 416)


def test_wrong_digest_leaves_nothing(client: Client, serving: Serving) -> None:
    answer = client("PUT", f"{_begin(client)}?digest={NOTHING}", CONTENT)
    assert (400, "DIGEST_INVALID") == (answer.status, answer.code)
    answer = client("POST", f"/v2/me/app/blobs/uploads/?digest={NOTHING}", CONTENT)
    assert (400, "DIGEST_INVALID") == (answer.status, answer.code)
    root = serving.registry.storage.root
    assert [] == [path for directory in ("blobs", "uploads") for path in (root / directory).rglob("*")]


def test_upload_is_cancelled(client: Client) -> None:
    location = _begin(client)
    assert 204 == client("DELETE", location).status
    answer = client("PATCH", location, b"x")
    assert (404, "BLOB_UPLOAD_UNKNOWN") == (answer.status, answer.code)


def test_upload_belongs_to_its_repository(client: Client) -> None:
    elsewhere = _begin(client).replace("me/app", "you/app")
    assert 404 == client("PATCH", elsewhere, b"x").status


def test_sha512_is_a_digest_too(client: Client) -> None:
    import hashlib

    digest = f"sha512:{hashlib.sha512(CONTENT).hexdigest()}"
    assert 201 == client("PUT", f"{_begin(client)}?digest={digest}", CONTENT).status
    assert CONTENT == client("GET", f"/v2/me/app/blobs/{digest}").body


def test_cut_connection_can_be_gone_on_from(client: Client) -> None:
    location = _begin(client)
    with socket.create_connection(("127.0.0.1", client.port)) as raw:
        head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(CONTENT)}\r\n\r\n".encode()
        raw.sendall(head + CONTENT[:5000])
    # The server learns of the end while it reads; our question waits for it.
    for _ in range(100):
        answer = client("GET", location)
        if answer.headers["range"] == "0-4999":
            break
        threading.Event().wait(0.02)
    assert "0-4999" == answer.headers["range"]
    assert 202 == client("PATCH", location, CONTENT[5000:], Content_Range=f"5000-{len(CONTENT) - 1}").status
    assert 201 == client("PUT", f"{location}?digest={digest_of(CONTENT)}").status


def test_upload_goes_on_after_a_restart(tmp_path: Path, serve: Any) -> None:
    first = serve(tmp_path)
    location = _begin(first.client)
    first.client("PATCH", location, CONTENT[:1000])
    first.stop()
    second = serve(tmp_path)
    assert 202 == second.client("PATCH", location, CONTENT[1000:], Content_Range=f"1000-{len(CONTENT) - 1}").status
    assert 201 == second.client("PUT", f"{location}?digest={digest_of(CONTENT)}").status


def test_many_push_the_same_at_once(client: Client) -> None:
    statuses: list[int] = []

    def push() -> None:
        statuses.append(client("PUT", f"{_begin(client)}?digest={digest_of(CONTENT)}", CONTENT).status)

    threads = [threading.Thread(target=push) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [201] * 8 == statuses
    assert CONTENT == client("GET", f"/v2/me/app/blobs/{digest_of(CONTENT)}").body


def test_mount_from_another_repository(client: Client) -> None:
    digest = client.put_blob("me/app", CONTENT)
    answer = client("POST", f"/v2/you/app/blobs/uploads/?mount={digest}&from=me/app")
    assert (201, f"/v2/you/app/blobs/{digest}") == (answer.status, answer.headers["location"])
    assert CONTENT == client("GET", f"/v2/you/app/blobs/{digest}").body
    assert 201 == client("POST", f"/v2/them/app/blobs/uploads/?mount={digest}").status, "without a `from`"
    for query in (f"mount={NOTHING}&from=me/app", f"mount={digest}&from=no/where", f"mount={NOTHING}"):
        answer = client("POST", f"/v2/third/app/blobs/uploads/?{query}")
        assert 202 == answer.status, "what can't be mounted becomes an upload"
        assert "location" in answer.headers


def test_full_disk(client: Client, serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    location = _begin(client)
    monkeypatch.setattr("real_engine.registry.uploads.os.fsync", fail)
    answer = client("PUT", f"{location}?digest={digest_of(CONTENT)}", CONTENT)
    assert (507, "UNKNOWN") == (answer.status, answer.code)
    assert "No space left on device" == answer.json["errors"][0]["message"]
    monkeypatch.undo()
    assert 404 == client("HEAD", f"/v2/me/app/blobs/{digest_of(CONTENT)}").status
    assert 201 == client("PUT", f"{location}?digest={digest_of(CONTENT)}").status, "room was made: it goes on"


# Pushing manifests


def test_manifest_needs_its_blobs(client: Client) -> None:
    fields = client.image("me/app")
    fields["layers"].append({"mediaType": media_types.OCI_LAYER, "digest": NOTHING, "size": 3})
    answer = client.put_manifest("me/app", "1", fields)
    assert (400, "MANIFEST_BLOB_UNKNOWN") == (answer.status, answer.code)
    assert NOTHING == answer.json["errors"][0]["detail"]["digest"]
    assert 404 == client("HEAD", "/v2/me/app/manifests/1").status


def test_manifest_must_know_the_sizes(client: Client) -> None:
    fields = client.image("me/app")
    fields["layers"][0]["size"] += 1
    assert "SIZE_INVALID" == client.put_manifest("me/app", "1", fields).code


def test_index_needs_its_manifests(client: Client) -> None:
    child = {"mediaType": media_types.OCI_MANIFEST, "digest": NOTHING, "size": 3}
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [child]}
    assert "MANIFEST_BLOB_UNKNOWN" == client.put_manifest("me/app", "1", index).code


def test_foreign_layer_may_be_elsewhere(client: Client) -> None:
    fields = client.image("me/app")
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    fields["layers"].append({"mediaType": foreign, "digest": NOTHING, "size": 3, "urls": ["https://example.com/l"]})
    assert 201 == client.put_manifest("me/app", "1", fields).status


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"no json", media_types.OCI_MANIFEST),
        (b"[]", media_types.OCI_MANIFEST),
        (b'{"schemaVersion":1,"name":"x","tag":"1"}', media_types.DOCKER_SCHEMA_1[1]),
        (b'{"schemaVersion":1}', media_types.OCI_MANIFEST),
        (b'{"schemaVersion":2}', media_types.OCI_MANIFEST),
        (b'{"schemaVersion":2,"manifests":[],"config":{}}', media_types.OCI_INDEX),
        (b'{"schemaVersion":2,"mediaType":"text/html"}', media_types.OCI_MANIFEST),
        (b'{"schemaVersion":2,"manifests":[]}', "image/png"),
        (b'{"schemaVersion":2,"manifests":[{"digest":"sha256:1","size":1}]}', media_types.OCI_INDEX),
        (b'{"schemaVersion":2,"manifests":{}}', media_types.OCI_INDEX),
        (b"[" * 100_000, media_types.OCI_MANIFEST),
    ],
)
def test_manifest_that_is_none(client: Client, content: bytes, media_type: str) -> None:
    answer = client("PUT", "/v2/me/app/manifests/1", content, Content_Type=media_type)
    assert (400, "MANIFEST_INVALID") == (answer.status, answer.code)


def test_manifest_of_four_mebibytes_is_the_largest(client: Client) -> None:
    fields = client.image("me/app")
    bare = len(json.dumps(fields | {"annotations": {"a": ""}}).encode())
    fields["annotations"] = {"a": "x" * (media_types.MANIFEST_LIMIT_BYTES - bare)}
    assert 201 == client.put_manifest("me/app", "1", fields).status
    fields["annotations"]["a"] += "x"
    assert 413 == client.put_manifest("me/app", "1", fields).status


def test_put_by_digest_checks_it(client: Client) -> None:
    fields = client.image("me/app")
    content = json.dumps(fields).encode()
    assert 201 == client.put_manifest("me/app", digest_of(content), fields).status
    assert "DIGEST_INVALID" == client.put_manifest("me/app", NOTHING, fields).code


@pytest.mark.parametrize("name", ["UPPER/case", "a//b", "../etc", "a/../b", "_manifests", "a/_tags", "-a", "a" * 256])
def test_name_that_is_none(client: Client, serving: Serving, name: str) -> None:
    answer = client("POST", f"/v2/{name}/blobs/uploads/")
    assert answer.status in (400, 404)
    assert answer.code in ("NAME_INVALID", "UNSUPPORTED")
    assert [] == list((serving.registry.storage.root / "repositories").iterdir())


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab./_-%2eA\\ ", min_size=1, max_size=12))
def test_no_name_leads_outside(name: str) -> None:
    from real_engine.registry.names import is_name

    if is_name(name):
        path = os.path.normpath(f"/top/{name}")
        assert path == f"/top/{name}"
        assert not any(part.startswith(("_", ".")) for part in name.split("/"))


# Referrers


def test_referrers(client: Client) -> None:
    subject = client.put_image("me/app", "1")
    pointer = {"mediaType": media_types.OCI_MANIFEST, "digest": subject, "size": 1}
    made = {}
    for kind in ("a/signature", "a/sbom"):
        fields = client.image("me/app") | {"subject": pointer, "artifactType": kind, "annotations": {"k": kind}}
        answer = client.put_manifest("me/app", digest_of(json.dumps(fields).encode()), fields)
        assert (201, subject) == (answer.status, answer.headers["oci-subject"])
        made[kind] = answer.headers["docker-content-digest"]
    answer = client("GET", f"/v2/me/app/referrers/{subject}")
    assert media_types.OCI_INDEX == answer.headers["content-type"]
    assert set(made.values()) == {one["digest"] for one in answer.json["manifests"]}
    filtered = client("GET", f"/v2/me/app/referrers/{subject}?artifactType=a/sbom")
    assert "artifactType" == filtered.headers["oci-filters-applied"]
    [only] = filtered.json["manifests"]
    assert (made["a/sbom"], "a/sbom", {"k": "a/sbom"}) == (only["digest"], only["artifactType"], only["annotations"])
    assert 202 == client("DELETE", f"/v2/me/app/manifests/{made['a/sbom']}").status
    left = client("GET", f"/v2/me/app/referrers/{subject}").json["manifests"]
    assert [made["a/signature"]] == [one["digest"] for one in left]


def test_subject_may_come_later(client: Client) -> None:
    fields = client.image("me/app") | {"subject": {"mediaType": "a/b", "digest": NOTHING, "size": 1}}
    assert 201 == client.put_manifest("me/app", "sig", fields).status
    [only] = client("GET", f"/v2/me/app/referrers/{NOTHING}").json["manifests"]
    assert media_types.OCI_CONFIG == only["artifactType"], "without a word of its own it is the configuration's type"


def test_nobody_refers_to_it(client: Client) -> None:
    answer = client("GET", f"/v2/me/app/referrers/{NOTHING}")
    assert (200, []) == (answer.status, answer.json["manifests"])


def test_referrers_come_in_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("real_engine.registry.server.MOST_REFERRERS", 2)
    for number in range(5):
        fields = client.image("me/app") | {
            "subject": {"mediaType": "a/b", "digest": NOTHING, "size": 1},
            "annotations": {"n": str(number)},
        }
        client.put_manifest("me/app", f"sig{number}", fields)
    found, path = [], f"/v2/me/app/referrers/{NOTHING}"
    while path:
        answer = client("GET", path)
        found += [one["annotations"]["n"] for one in answer.json["manifests"]]
        path = answer.headers.get("link", "<>").partition("<")[2].partition(">")[0]
    assert ["0", "1", "2", "3", "4"] == sorted(found)


# Lists


def test_tags_come_in_pages(client: Client) -> None:
    names = ["1", "1.0", "B", "a", "latest"]
    for tag in reversed(names):
        client.put_image("me/app", tag)
    assert {"name": "me/app", "tags": names} == client("GET", "/v2/me/app/tags/list").json
    found, path, pages = [], "/v2/me/app/tags/list?n=2", 0
    while path:
        answer = client("GET", path)
        found += answer.json["tags"]
        pages += 1
        path = answer.headers.get("link", "<>").partition("<")[2].partition(">")[0]
    assert (names, 3) == (found, pages)
    assert ["latest"] == client("GET", "/v2/me/app/tags/list?last=a").json["tags"]
    assert [] == client("GET", "/v2/me/app/tags/list?n=0").json["tags"]
    assert "PAGINATION_NUMBER_INVALID" == client("GET", "/v2/me/app/tags/list?n=-1").code
    answer = client("GET", "/v2/no/where/tags/list")
    assert (404, "NAME_UNKNOWN") == (answer.status, answer.code)


def test_catalog(client: Client) -> None:
    for name in ("b/app", "a", "b"):
        client.put_image(name, "1")
    client.put_blob("only/blobs", b"x")
    assert ["a", "b", "b/app"] == client("GET", "/v2/_catalog").json["repositories"]
    answer = client("GET", "/v2/_catalog?n=1")
    assert ["a"] == answer.json["repositories"]
    assert '</v2/_catalog?last=a&n=1>; rel="next"' == answer.headers["link"]


# Deleting


def test_tag_is_deleted_and_the_manifest_stays(client: Client) -> None:
    digest = client.put_image("me/app", "1")
    assert 202 == client("DELETE", "/v2/me/app/manifests/1").status
    assert 404 == client("HEAD", "/v2/me/app/manifests/1").status
    assert 200 == client("HEAD", f"/v2/me/app/manifests/{digest}").status


def test_manifest_is_deleted_with_its_tags(client: Client) -> None:
    digest = client.put_image("me/app", "1")
    assert digest == client.put_image("me/app", "2")
    other = client.put_image("me/app", "3", (b"other",))
    assert 202 == client("DELETE", f"/v2/me/app/manifests/{digest}").status
    assert ["3"] == client("GET", "/v2/me/app/tags/list").json["tags"]
    assert 404 == client("GET", f"/v2/me/app/manifests/{digest}").status
    assert 200 == client("GET", f"/v2/me/app/manifests/{other}").status
    assert 404 == client("DELETE", f"/v2/me/app/manifests/{digest}").status


def test_blob_is_deleted(client: Client) -> None:
    digest = client.put_blob("me/app", CONTENT)
    assert 202 == client("DELETE", f"/v2/me/app/blobs/{digest}").status
    assert 404 == client("HEAD", f"/v2/me/app/blobs/{digest}").status
    assert 404 == client("DELETE", f"/v2/me/app/blobs/{digest}").status


def test_registry_that_is_only_read(tmp_path: Path, serve: Any) -> None:
    writable = serve(tmp_path)
    digest = writable.client.put_image("me/app", "1")
    writable.stop()
    for options in ({"read_only": True}, {"deletable": False}):
        served = serve(tmp_path, **options)
        assert 200 == served.client("GET", "/v2/me/app/manifests/1").status
        refused = served.client("DELETE", f"/v2/me/app/manifests/{digest}")
        assert (405, "UNSUPPORTED") == (refused.status, refused.code)
        begun = served.client("POST", "/v2/me/app/blobs/uploads/").status
        assert (405 if "read_only" in options else 202) == begun


def test_method_that_an_endpoint_does_not_know(client: Client) -> None:
    answer = client("POST", "/v2/me/app/tags/list")
    assert (405, "UNSUPPORTED", "GET") == (answer.status, answer.code, answer.headers["allow"])
    assert 404 == client("GET", "/v1/search").status


# Who may


def test_password(tmp_path: Path, serve: Any) -> None:
    users = tmp_path / "users"
    users.write_text(f"# who may\nanna:{hash_password('s3cret: ok', cost=4)}\n")
    served = serve(tmp_path / "registry", Passwords(users))

    def status(name: str, password: str) -> int:
        encoded = base64.b64encode(f"{name}:{password}".encode()).decode()
        answer: int = served.client("GET", "/v2/", Authorization=f"Basic {encoded}").status
        return answer

    refused = served.client("GET", "/v2/")
    assert (401, "UNAUTHORIZED") == (refused.status, refused.code)
    assert refused.headers["www-authenticate"].startswith("Basic realm=")
    assert [200, 200, 401, 401, 401] == [
        status("anna", "s3cret: ok"),
        status("anna", "s3cret: ok"),
        status("anna", "wrong"),
        status("nobody", "s3cret: ok"),
        status("", ""),
    ]
    assert 401 == served.client("GET", "/v2/", Authorization="Basic !!!").status
    users.write_text(f"berta:{hash_password('new', cost=4)}\n")
    assert [401, 200] == [status("anna", "s3cret: ok"), status("berta", "new")], "the file is read again"
