"""The API's call that makes an image of a container: POST /commit."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from real_engine.daemon.containers import requests
from real_engine.daemon.containers.merge import merge
from real_engine.daemon.containers.record import Record
from real_engine.errors import Conflict, InvalidParameter, NotFound, NotImplementedHere
from real_engine.http.messages import Request, Response
from real_engine.http.router import Router
from real_engine.images.references import Reference

if TYPE_CHECKING:
    from real_engine.daemon.app import Daemon
    from real_engine.daemon.containers.service import Containers


def register(router: Router, daemon: "Daemon") -> None:
    """Add the call to the router."""

    def commit(request: Request) -> Response:
        query = request.query
        name = query.get("container") or query.get("Container")
        if not name:
            raise InvalidParameter("no container was named to commit")
        reference = _reference(query.get("repo"), query.get("tag"))
        body = request.json()
        record = daemon.containers.get(name)
        config = _config(body, record.config) if body else dict(record.config)
        wanted = query.flag("pause", default=True) and record.state.running and not record.state.paused
        # Its lock keeps it from being removed meanwhile, and its layer with it.
        with record.lock, _still(daemon.containers, record, wanted=wanted):
            for gone, how in ((record.state.dead, "Dead"), (record.state.removing, "being removed")):
                if gone:
                    raise Conflict(f"You cannot commit container {record.id} which is {how}")
            image = daemon.images.commit(
                _parent(daemon, record.image_id),
                upper=daemon.containers.path(record) / "upper",
                container_config=record.config,
                config=config,
                container_id=record.id,
                author=query.get("author"),
                comment=query.get("comment"),
                changes=query.all("changes"),
            )
        if reference is not None:
            daemon.images.tag(image, reference)
            daemon.events.publish("image", "tag", image.id, {"name": reference.familiar})
        daemon.containers.publish(
            record, "commit", {"comment": query.get("comment"), "imageID": image.id, "imageRef": str(reference or "")}
        )
        return Response.json({"Id": image.id}, status=201)

    router.add("POST", "/commit", commit)


@contextlib.contextmanager
def _still(containers: "Containers", record: Record, *, wanted: bool) -> Iterator[None]:
    """The container paused, where that is wanted and can be: as Docker, an image is made of it all the same."""
    paused = False
    if wanted:
        with contextlib.suppress(NotImplementedHere, Conflict):  # no freezer here, or it has just ended
            containers.lifecycle.pause(record.id)
            paused = True
    try:
        yield
    finally:
        if paused:
            with contextlib.suppress(Conflict):  # it has ended
                containers.lifecycle.unpause(record.id)


def _reference(repository: str, tag: str) -> Reference | None:
    if not repository:
        return None
    return Reference.parse(f"{repository}:{tag}" if tag else repository)


def _config(body: Any, own: dict[str, Any]) -> dict[str, Any]:
    """What the request says, completed by the container's own configuration."""
    if not isinstance(body, dict):
        raise InvalidParameter("the body must be a JSON object")
    given = requests.config(body)
    merge(given, own)
    return given


def _parent(daemon: "Daemon", identifier: str) -> Any:
    """The image that the container came from; None if it has been removed by force."""
    try:
        return daemon.images.resolve(identifier)
    except NotFound:
        return None
