"""The API's calls for swarms, of which this engine is never a member: they answer as such a node does."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from real_engine.errors import InvalidParameter, NotImplementedHere, Unavailable
from real_engine.filters import parse_filters

if TYPE_CHECKING:
    from real_engine.daemon.app import Daemon
    from real_engine.http.messages import Request
    from real_engine.http.router import Router

# moby daemon/cluster errors.go
NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)
_NO_MEMBER = "This node is not part of a swarm"
_NO_SWARM = "onggi runs containers on one machine and has no swarm; `onggi compose` can spread services over daemons"
_NO_STREAM = "Bad parameters: you must choose at least one stream"


def refuse(_: Request) -> NoReturn:
    """A question that only a manager can answer."""
    raise Unavailable(NO_MANAGER)


def refuse_list(request: Request) -> NoReturn:
    """The same for a list, whose filters are looked at first."""
    parse_filters(request.query.get("filters"))
    raise Unavailable(NO_MANAGER)


def refuse_body(request: Request) -> NoReturn:
    """The same for something to be made, whose description must be JSON."""
    request.json(required=True)
    raise Unavailable(NO_MANAGER)


def refuse_update(request: Request) -> NoReturn:
    """The same for a change of one version of something.

    Raises:
        InvalidParameter: the version is no number.
        Unavailable: always, else.
    """
    kind = request.path.split("/")[1].rstrip("s")
    if kind != "secret" and kind != "config":
        request.json(required=True)
    version = request.query.get("version")
    if not (version.isascii() and version.isdigit()):
        if kind in ("secret", "config"):
            raise InvalidParameter(f"invalid {kind} version")
        raise InvalidParameter(
            f"invalid {kind} version '{version}': strconv.ParseUint: parsing \"{version}\": invalid syntax"
        )
    if kind in ("secret", "config"):
        request.json(required=True)
    raise Unavailable(NO_MANAGER)


def refuse_logs(request: Request) -> NoReturn:
    """The logs of a service or task."""
    if not (request.query.flag("stdout") or request.query.flag("stderr")):
        raise InvalidParameter(_NO_STREAM)
    raise Unavailable(NO_MANAGER)


def found_or_join(request: Request) -> NoReturn:
    """To found a swarm, or to join one."""
    request.json(required=True)
    raise NotImplementedHere(_NO_SWARM)


def leave(_: Request) -> NoReturn:
    """To leave the swarm."""
    raise Unavailable(_NO_MEMBER)


def register(router: Router, daemon: Daemon) -> None:
    """Add the calls to the router."""
    router.add("GET", "/swarm", refuse)
    router.add("GET", "/swarm/unlockkey", refuse)
    router.add("POST", "/swarm/init", found_or_join)
    router.add("POST", "/swarm/join", found_or_join)
    router.add("POST", "/swarm/leave", leave)
    router.add("POST", "/swarm/unlock", refuse_body)
    router.add("POST", "/swarm/update", refuse_update)
    for kind in ("services", "secrets", "configs"):
        router.add("POST", f"/{kind}/create", refuse_body)
    for kind in ("nodes", "services", "secrets", "configs", "tasks"):
        router.add("GET", f"/{kind}", refuse_list)
        router.add("GET", f"/{kind}/{{id}}", refuse)
        if kind != "tasks":
            router.add("DELETE", f"/{kind}/{{id}}", refuse)
            router.add("POST", f"/{kind}/{{id}}/update", refuse_update)
    for kind in ("services", "tasks"):
        router.add("GET", f"/{kind}/{{id}}/logs", refuse_logs)
