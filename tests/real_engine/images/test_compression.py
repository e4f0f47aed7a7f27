"""Compressed streams are known by their first bytes, and read whole or not at all."""

import bz2
import gzip
import io
import lzma

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.errors import InvalidParameter
from real_engine.images.compression import Decompressed, compression_of, gzip_pieces

COMPRESS = {
    "": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}


class Dribble:
    """Gives no more than a few bytes at a time, as a socket may."""

    def __init__(self, data, size):
        self._file = io.BytesIO(data)
        self._size = size

    def read(self, size=-1, /):
        return self._file.read(self._size if size < 0 else min(size, self._size))


@settings(max_examples=60)
@given(st.sampled_from(sorted(COMPRESS)), st.binary(max_size=5000), st.integers(1, 700))
def test_whatever_it_is_it_comes_out_plain(kind, data, size):
    stream = Decompressed(Dribble(COMPRESS[kind](data), size))
    if kind:
        assert kind == stream.kind
    if kind or not compression_of(data):
        assert data == stream.read()


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd"])
def test_streams_may_follow_one_another(kind):
    data = COMPRESS[kind](b"one") + COMPRESS[kind](b"two")
    assert b"onetwo" == Decompressed(io.BytesIO(data)).read()


def test_zeros_after_a_gzip_count_for_nothing():
    data = gzip.compress(b"one") + bytes(700_000)
    assert b"one" == Decompressed(io.BytesIO(data)).read()


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd"])
def test_garbage_after_the_end_is_told(kind):
    with pytest.raises(InvalidParameter, match=kind):
        Decompressed(io.BytesIO(COMPRESS[kind](b"one") + b"garbage")).read()


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd"])
@pytest.mark.parametrize("left", [0.3, 0.6, 0.99])
def test_a_cut_off_stream_is_told(kind, left):
    whole = COMPRESS[kind](bytes(range(256)) * 200)
    with pytest.raises(InvalidParameter, match="EOF"):
        Decompressed(io.BytesIO(whole[: int(len(whole) * left)])).read()


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd"])
def test_a_damaged_stream_is_told(kind):
    damaged = bytearray(COMPRESS[kind](bytes(range(256)) * 50))
    damaged[len(damaged) // 2] ^= 0xFF
    damaged[len(damaged) // 2 + 1] ^= 0xFF
    with pytest.raises(InvalidParameter, match=kind):
        Decompressed(io.BytesIO(bytes(damaged))).read()


def test_a_bomb_is_read_piece_by_piece():
    bomb = gzip.compress(bytes(50_000_000))
    stream = Decompressed(io.BytesIO(bomb))
    assert len(stream.read(1 << 20)) <= 1 << 20


def test_an_empty_stream_is_empty():
    assert b"" == Decompressed(io.BytesIO(b"")).read()


@settings(max_examples=20)
@given(st.binary(max_size=3000))
def test_gzip_is_made_the_same_twice(data):
    first = b"".join(gzip_pieces(io.BytesIO(data)))
    assert first == b"".join(gzip_pieces(io.BytesIO(data)))
    assert data == gzip.decompress(first)
    assert b"\0\0\0\0" == first[4:8]
