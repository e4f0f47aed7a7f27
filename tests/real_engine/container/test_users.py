"""Users are looked up in the container's files, whatever is in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_engine.container.users import Credentials, look_up

PASSWD = (
    b"root:x:0:0:root:/root:/bin/sh\nbroken line\nweb:x:33:34:::/bin/false\nalice:x:1000:1000::/home/alice:/bin/sh\n"
)
GROUP = b"root:x:0:\nweb:x:34:\nstaff:x:50:bob,alice\nwheel:x:10:alice\nbad:x:not:alice\n"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("root", Credentials(0, 0, (0,), "/root")),
        ("0", Credentials(0, 0, (0,), "/root")),
        ("alice", Credentials(1000, 1000, (1000, 50, 10), "/home/alice")),
        ("1000", Credentials(1000, 1000, (1000, 50, 10), "/home/alice")),
        ("alice:web", Credentials(1000, 34, (34,), "/home/alice")),
        (":web", Credentials(0, 34, (34,), "/root")),
        ("web:7", Credentials(33, 7, (7,), "")),
        ("4242", Credentials(4242, 0, (0,), "/")),
        ("4242:4243", Credentials(4242, 4243, (4243,), "/")),
    ],
)
def test_look_up(user, expected):
    assert expected == look_up(user, PASSWD, GROUP)


@pytest.mark.parametrize("user", ["ghost", "", "alice:ghosts", "alice:", "-1", "4294967295", "１"])
def test_who_is_not_there(user):
    with pytest.raises(LookupError, match="no matching entries in"):
        look_up(user, PASSWD, GROUP)


@given(passwd=st.binary(max_size=300), group=st.binary(max_size=300), uid=st.integers(0, 2**32 - 2))
def test_a_number_is_always_itself_whatever_the_files_hold(passwd, group, uid):
    assert uid == look_up(str(uid), passwd, group).uid
