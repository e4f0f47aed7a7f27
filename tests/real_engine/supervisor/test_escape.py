"""Detach keys: recognised however they are cut into reads, and everything else comes through unchanged."""

from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.supervisor.escape import DEFAULT_DETACH_KEYS, EscapeProxy

_KEYS = st.binary(min_size=1, max_size=3).map(lambda data: bytes(byte % 3 for byte in data))
_TYPED = st.lists(st.binary(max_size=6).map(lambda data: bytes(byte % 4 for byte in data)), max_size=8)


def expected(keys: bytes, typed: bytes) -> tuple[bytes, bool]:
    """Docker's rule, one byte at a time: a byte that doesn't go on with the sequence begins nothing."""
    passed, matched = b"", 0
    for byte in typed:
        if byte == keys[matched]:
            matched += 1
            if matched == len(keys):
                return passed, True
        else:
            passed += keys[:matched] + bytes([byte])
            matched = 0
    return passed + keys[:matched], False


@settings(max_examples=200)
@given(_KEYS, _TYPED)
def test_as_docker_for_any_reads(keys, typed):
    proxy = EscapeProxy(keys)
    passed, detached = b"", False
    for piece in typed:
        data, detached = proxy.feed(piece)
        passed += data
        if detached:
            break
    else:
        passed += proxy.rest()
    assert expected(keys, b"".join(typed)) == (passed, detached)


def test_the_default_keys():
    proxy = EscapeProxy()
    assert (b"ls", False) == proxy.feed(b"ls\x10")
    assert (b"", True) == proxy.feed(b"\x11rest")
    assert b"\x10\x11" == DEFAULT_DETACH_KEYS


def test_a_second_ctrl_p_begins_nothing():
    assert (b"\x10\x10\x11", False) == EscapeProxy().feed(b"\x10\x10\x11")


def test_no_keys_never_detach():
    assert (b"\x10\x11", False) == EscapeProxy(b"").feed(b"\x10\x11")
