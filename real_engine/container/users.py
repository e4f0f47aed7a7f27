"""Who runs in a container: names looked up in the *container's* passwd and group files, by a parser of our own.

Python's `pwd` and `grp` go through the C library, which would load the container's NSS modules into the engine's
process: code chosen by whoever made the image, run with the engine's rights (CVE-2019-14271 was such a case).
"""

from typing import NamedTuple

_MOST_DIGITS = 10  # of 32 bits; Python's int() raises ValueError for thousands of them


class Credentials(NamedTuple):
    """What a process runs as, and its home directory."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def look_up(user: str, passwd: bytes, group: bytes, more_groups: tuple[str, ...] = ()) -> Credentials:
    """The credentials of `name|uid[:group|gid]` by the contents of /etc/passwd and /etc/group.

    A number need not be in the files. Supplementary groups are the user's own one (without it a program could drop it
    to get around a refusal, CVE-2022-36109), those that list the user, unless a group is given, and `more_groups`. The
    messages are Docker's.

    Raises:
        LookupError: a name that is in neither file.
    """
    name, separator, group_name = user.partition(":")
    uid, gid, home = (0 if separator and not name else _number(name)), 0, "/"  # `:group` is root, of that group
    for fields in _records(passwd, 6):
        entry_uid, entry_gid = _number(fields[2]), _number(fields[3])
        if entry_uid is None or entry_gid is None:
            continue
        # A name that looks like a number means the number, as it does for chown.
        if (fields[0] == name) if uid is None else (entry_uid == uid):
            name, uid, gid, home = fields[0], entry_uid, entry_gid, fields[5]
            break
    if uid is None:
        raise LookupError(f"unable to find user {name}: no matching entries in passwd file")
    more = [_group(name, group) for name in more_groups]
    if separator:
        gid = _group(group_name, group)
        return Credentials(uid, gid, tuple(dict.fromkeys((gid, *more))), home)
    numbers = (_number(fields[2]) for fields in _records(group, 4) if name in fields[3].split(","))
    listed = [number for number in numbers if number is not None]
    return Credentials(uid, gid, tuple(dict.fromkeys((gid, *listed, *more))), home)


def _group(name: str, group: bytes) -> int:
    number = _number(name)
    if number is not None:
        return number
    for fields in _records(group, 3):
        found = _number(fields[2])
        if fields[0] == name and found is not None:
            return found
    raise LookupError(f"unable to find group {name}: no matching entries in group file")


def _records(text: bytes, least_fields: int) -> list[list[str]]:
    """Lines of at least `least_fields` fields. Others are passed over, as getpwent(3) does."""
    # At newlines only: splitlines() would take a dozen characters for an end that passwd(5) knows nothing of.
    lines = text.decode("utf-8", "surrogateescape").split("\n")
    return [fields for fields in (line.split(":") for line in lines) if len(fields) >= least_fields]


def _number(text: str) -> int | None:
    """`text` as a user or group number, if it is one: uid_t has 32 bits, and -1 means none."""
    digits = text.lstrip("0") or text[:1]
    if len(digits) > _MOST_DIGITS or not (text.isascii() and text.isdigit()):
        return None
    number = int(digits)
    return number if number < 0xFFFF_FFFF else None
