"""The content store: a blob is whole and what its name says, or it isn't there."""

import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.errors import EngineError, InvalidParameter, NotFound
from real_engine.images.blobs import BlobStore, DigestMismatch, digest_of, parse_object


@pytest.fixture
def blobs(tmp_path):
    return BlobStore(tmp_path / "images")


def partials(blobs):
    return list((blobs.root / "partial").iterdir())


def test_it_is_an_oci_layout(blobs):
    assert {"imageLayoutVersion": "1.0.0"} == json.loads((blobs.root / "oci-layout").read_bytes())
    described = blobs.put(b"content", "text/plain")
    assert b"content" == (blobs.root / "blobs/sha256" / described.digest[7:]).read_bytes()
    assert {"mediaType": "text/plain", "digest": digest_of(b"content"), "size": 7} == described.to_json()


@settings(max_examples=25)
@given(pieces=st.lists(st.binary(max_size=50), max_size=6))
def test_what_is_written_in_pieces_is_read_as_one(tmp_path_factory, pieces):
    blobs = BlobStore(tmp_path_factory.mktemp("images"))
    with blobs.writer() as writer:
        for piece in pieces:
            writer.write(piece)
        described = writer.commit()
    whole = b"".join(pieces)
    assert digest_of(whole) == described.digest
    assert whole == blobs.read(described.digest)
    assert len(whole) == described.size == blobs.size(described.digest)
    assert [described.digest] == list(blobs.digests())
    assert [] == partials(blobs)


def test_what_is_not_committed_is_gone(blobs):
    with blobs.writer() as writer:
        writer.write(b"half")
    assert [] == list(blobs.digests())
    assert [] == partials(blobs)


@pytest.mark.parametrize("resume", [False, True])
def test_the_wrong_bytes_get_no_name(blobs, resume):
    wanted = digest_of(b"right")
    with blobs.writer(wanted if resume else "") as writer:
        writer.write(b"wrong")
        with pytest.raises(DigestMismatch, match=wanted):
            writer.commit(wanted)
    assert not blobs.has(wanted)
    assert [] == partials(blobs)


def test_the_wrong_length_is_told(blobs):
    with blobs.writer() as writer:
        writer.write(b"four")
        with pytest.raises(DigestMismatch, match="has 4 bytes instead of 5"):
            writer.commit(size=5)


def test_a_cut_off_blob_is_gone_on_from(blobs):
    whole = bytes(range(256)) * 20
    digest = digest_of(whole)
    with blobs.writer(digest) as writer:
        writer.write(whole[:3000])
    with blobs.writer(digest) as writer:
        assert 3000 == writer.offset
        writer.write(whole[3000:])
        assert digest == writer.commit(digest).digest
    assert whole == blobs.read(digest)
    with blobs.writer(digest) as writer:
        assert 0 == writer.offset  # nothing is kept of what is whole


def test_a_resumed_blob_can_be_begun_anew(blobs):
    digest = digest_of(b"whole")
    with blobs.writer(digest) as writer:
        writer.write(b"garbage")
    with blobs.writer(digest) as writer:
        writer.restart()
        assert 0 == writer.offset
        writer.write(b"whole")
        writer.commit(digest)
    assert b"whole" == blobs.read(digest)


def test_two_writers_of_one_blob_do_not_mix(blobs):
    digest = digest_of(b"the same")
    with blobs.writer(digest) as first, blobs.writer(digest) as second:
        first.write(b"the ")
        second.write(b"the same")
        second.commit(digest)
        first.write(b"same")
        first.commit(digest)
    assert b"the same" == blobs.read(digest)
    assert [] == partials(blobs)


def test_many_threads_may_store_the_same(blobs):
    threads = [threading.Thread(target=blobs.put, args=(b"x" * 100_000,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [digest_of(b"x" * 100_000)] == list(blobs.digests())
    assert [] == partials(blobs)


def test_a_blob_that_the_disk_has_changed_is_noticed(blobs):
    digest = blobs.put(b"content").digest
    blobs.path(digest).write_bytes(b"CONTENT")
    with pytest.raises(DigestMismatch, match="changed on the disk"):
        blobs.read(digest)
    with pytest.raises(DigestMismatch, match="changed on the disk"):
        blobs.open(digest, verify=True)


def test_reading_is_bounded(blobs):
    digest = blobs.put(b"x" * 100).digest
    with pytest.raises(EngineError, match="longer than the 99 bytes"):
        blobs.read(digest, limit=99)


@pytest.mark.parametrize("data", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_json_that_is_no_object_is_refused(data):
    with pytest.raises(InvalidParameter, match=r"^manifest is no JSON"):
        parse_object(data, "manifest")


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../etc/passwd", "md5:" + "a" * 32, "sha256:" + "A" * 64])
def test_a_digest_never_becomes_another_path(blobs, digest):
    with pytest.raises(InvalidParameter, match="digest"):
        blobs.has(digest)


def test_what_is_not_there_is_told(blobs):
    missing = digest_of(b"nothing")
    assert not blobs.has(missing)
    assert 0 == blobs.remove(missing)
    for call in (blobs.open, blobs.read, blobs.size):
        with pytest.raises(NotFound, match=missing):
            call(missing)


def test_removing_gives_the_bytes_back(blobs):
    digest = blobs.put(b"x" * 10).digest
    assert 10 == blobs.remove(digest)
    assert not blobs.has(digest)


def test_what_a_killed_engine_left_is_removed_but_for_what_can_be_resumed(blobs):
    digest = digest_of(b"whole")
    with blobs.writer(digest) as writer:
        writer.write(b"who")
    (blobs.root / "partial" / ".tmpabandoned").write_bytes(b"x")
    blobs.remove_abandoned()
    assert [digest[7:]] == [path.name for path in partials(blobs)]


def test_a_full_disk_leaves_nothing(blobs, monkeypatch):
    def full(_descriptor, _data):
        raise OSError(28, "No space left on device")

    with blobs.writer() as writer:
        monkeypatch.setattr("os.write", full)
        with pytest.raises(OSError, match="No space left"):
            writer.write(b"x")
    assert [] == partials(blobs)
