"""The API's calls under /images, but for those that speak to a registry."""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from real_engine.daemon.app import engine_version
from real_engine.errors import Conflict, EngineError, InvalidParameter, NotFound
from real_engine.filters import Filters, parse_filters
from real_engine.http.messages import Response, json_line
from real_engine.images import views
from real_engine.images.build.downloads import fetch
from real_engine.images.build.patterns import compile_glob
from real_engine.images.importing import import_tar
from real_engine.images.loading import Loaded, load
from real_engine.images.references import Reference
from real_engine.images.removal import chain_ids
from real_engine.images.saving import Selected, save, select
from real_engine.images.trees import remove_tree
from real_engine.registry import progress
from real_engine.registry.platforms import Platform
from real_engine.times import parse_moment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from real_engine.daemon.app import Daemon
    from real_engine.http.messages import Request
    from real_engine.http.router import Router
    from real_engine.images.compression import Source
    from real_engine.images.store import Image, ImageStore
    from real_engine.registry.progress import Line

Json = dict[str, Any]

_log = logging.getLogger("onggi")

_LIST_FILTERS = ("dangling", "label", "before", "since", "reference", "until")
_PRUNE_FILTERS = ("dangling", "label", "label!", "until")
_SHORT = 12  # digits of an id that a person is shown
_LARGEST_IMPORT = 1 << 40  # bytes that are fetched of an address
_PATIENCE_SECONDS = 0.25  # how soon it is noticed that a client has gone while a load says nothing


class ImageRoutes:
    """What a request about images means, and how the answer looks."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @property
    def _images(self) -> ImageStore:
        return self._daemon.images

    # --- showing -----------------------------------------------------------------------------------------------------

    def list_all(self, request: Request) -> Response:
        """GET /images/json."""
        filters = parse_filters(request.query.get("filters"))
        found = self.summaries(filters, everything=request.query.flag("all"), shared=request.query.flag("shared-size"))
        if request.version is not None and request.version < (1, 43):
            for one in found:
                if not one["RepoTags"] and not one["RepoDigests"]:
                    one["RepoTags"], one["RepoDigests"] = ["<none>:<none>"], ["<none>@<none>"]
                one["RepoTags"], one["RepoDigests"] = one["RepoTags"] or None, one["RepoDigests"] or None
        return Response.json(found)

    def summaries(
        self, filters: Filters, *, everything: bool, shared: bool = False, containers: bool = False
    ) -> list[Json]:
        """The images that filters let through, the newest first; those without a name only if they have no child.

        Raises:
            InvalidParameter: a filter that isn't known, or makes no sense.
            NotFound: a filter names an image that isn't there.
        """
        filters.check(_LIST_FILTERS)
        dangling = filters.flag("dangling")
        earliest, latest = self._times(filters)
        patterns = filters.get("reference")
        for pattern in patterns:
            compile_glob(pattern)
        chosen: list[tuple[int, Image, Json]] = []
        for image in self._images.images():
            created = views.created_ns(image.created)
            if not (earliest is None or created > earliest) or not (latest is None or created < latest):
                continue
            if not filters.labels("label", image.labels):
                continue
            names = self._images.references(image.id)
            if patterns:
                names = [name for name in names if any(views.matches(pattern, name) for pattern in patterns)]
            if names:
                if dangling and any(name.tag for name in names):
                    continue
            else:
                between = self._images.has_children(image.id)  # a step of a build, which others were made upon
                if patterns or ("dangling" in filters and not dangling) or (between and (dangling or not everything)):
                    continue
            chosen.append((created, image, views.summary(image, names)))
        chosen.sort(key=lambda one: (-one[0], one[1].id))
        if shared:
            sizes, _ = views.shared_sizes(self._images, self._images.images())
            for _, image, summary in chosen:
                summary["SharedSize"] = sizes[image.id]
        if containers:
            used_by = self._daemon.containers.table.used_images()
            for _, image, summary in chosen:
                summary["Containers"] = len(used_by(image.id))
        return [summary for _, _, summary in chosen]

    def _times(self, filters: Filters) -> tuple[int | None, int | None]:
        """After which moment, and before which, an image must have been made (nanoseconds since 1970)."""
        after = [views.created_ns(self._images.resolve(name).created) for name in filters.get("since")]
        before = [views.created_ns(self._images.resolve(name).created) for name in filters.get("before")]
        before += [moment for text in filters.get("until") if (moment := parse_moment(text)) is not None]
        return max(after, default=None), min(before, default=None)

    def inspect(self, request: Request) -> Response:
        """GET /images/{name}/json."""
        return Response.json(views.details(self._images.base(request.match["name"])))

    def history(self, request: Request) -> Response:
        """GET /images/{name}/history."""
        return Response.json(views.history(self._images, self._images.base(request.match["name"])))

    def usage(self) -> Json:
        """What GET /system/df tells of images."""
        _, size = views.shared_sizes(self._images, self._images.images())
        return {
            "LayersSize": size,
            "Images": self.summaries(Filters(), everything=False, shared=True, containers=True),
        }

    # --- naming and removing -----------------------------------------------------------------------------------------

    def tag(self, request: Request) -> Response:
        """POST /images/{name}/tag."""
        reference = _reference(request.query.get("repo"), request.query.get("tag"))
        if reference is None:
            raise InvalidParameter("invalid reference format")
        image = self._images.base(request.match["name"])
        self._publish("tag", self._images.tag(image, reference), reference.familiar)
        return Response(201)

    def remove(self, request: Request) -> Response:
        """DELETE /images/{name}."""
        records = self._remove(
            request.match["name"],
            force=request.query.flag("force"),
            prune=not request.query.flag("noprune"),
        )
        return Response.json(records)

    def _remove(self, name: str, *, force: bool, prune: bool) -> list[dict[str, str]]:
        labels = self._images.resolve(name).labels

        def happened(action: str, image_id: str) -> None:
            attributes = labels if action == "untag" else {}
            self._daemon.events.publish("image", action, image_id, {**attributes, "name": image_id})

        return self._images.remove(
            name,
            force=force,
            prune=prune,
            used_by=self._daemon.containers.table.used_images(),
            happened=happened,
        )

    def prune(self, request: Request) -> Response:
        """POST /images/prune: images without a name, or with `dangling=false` all that no container uses."""
        filters = parse_filters(request.query.get("filters"))
        filters.check(_PRUNE_FILTERS)
        dangling = filters.flag("dangling", default=True)
        until = [parse_moment(text) for text in filters.get("until")]
        if len(until) > 1:
            raise InvalidParameter("more than one until filter specified")
        sizes = self._chain_sizes()
        records: list[dict[str, str]] = []
        for image in self._images.images():
            names = self._images.references(image.id)
            if not names and self._images.has_children(image.id):
                continue
            if until and until[0] is not None and views.created_ns(image.created) > until[0]:
                continue
            if not filters.match_labels(image.labels):
                continue
            if dangling and any(name.tag for name in names):
                continue
            for name in [reference.canonical for reference in names] or [image.id[7:]]:
                try:
                    records += self._remove(name, force=False, prune=True)
                except (Conflict, NotFound) as error:  # used, or gone with another: the rest is pruned all the same
                    _log.debug("image prune: %s", error)
        reclaimed = sum(sizes.get(record.get("Deleted", ""), 0) for record in records)
        self._daemon.events.publish("image", "prune", "", {"reclaimed": str(reclaimed)})
        return Response.json({"ImagesDeleted": records or None, "SpaceReclaimed": reclaimed})

    def _chain_sizes(self) -> dict[str, int]:
        """The bytes of every layer, by the chain id under which its removal is told."""
        return {
            chain: self._images.layers.get(diff_id).size
            for image in self._images.images()
            for chain, diff_id in zip(chain_ids(image.diff_ids), image.diff_ids, strict=True)
        }

    # --- archives ----------------------------------------------------------------------------------------------------

    def save_one(self, request: Request) -> Response:
        """GET /images/{name}/get."""
        return self._save([request.match["name"]])

    def save_several(self, request: Request) -> Response:
        """GET /images/get?names=…"""
        return self._save(request.query.all("names"))

    def _save(self, names: list[str]) -> Response:
        selected = select(self._images, names)
        return Response(200, self._saved(selected), {}, "application/x-tar")

    def _saved(self, selected: list[Selected]) -> Iterator[bytes]:
        yield from save(self._images, selected)
        for one in selected:
            self._publish("save", one.image)

    def load(self, request: Request) -> Response:
        """POST /images/load: what goes wrong is a line of the answer, as with Docker."""
        return Response(200, _Load(self, request), {}, "application/json")

    def loaded(self, loaded: Loaded) -> list[Line]:
        """Tell that an image was loaded; returns the lines about it."""
        lines: list[Line] = [
            {
                "stream": f"The image {reference.familiar} already exists, "
                f"renaming the old one with ID {before} to empty string\n"
            }
            for reference, before in loaded.replaced
        ]
        lines += [{"stream": f"Loaded image: {reference.familiar}\n"} for reference in loaded.references]
        if not loaded.references:
            lines.append({"stream": f"Loaded image ID: {loaded.image.id}\n"})
        self._publish("load", loaded.image)
        return lines

    def take_import(self, request: Request) -> Response:
        """POST /images/create with `fromSrc`: an image of a tar archive, from the body (`-`) or an address."""
        query = request.query
        source = query.get("fromSrc")
        reference = _reference(query.get("repo"), query.get("tag"))
        text = query.get("platform")
        platform = Platform.parse(text) if text else Platform.of_this_machine()
        if platform.os != "linux":
            raise InvalidParameter(f"operating system is not supported: {platform.os}")
        comment = query.get("message") or f"Imported from {source}"
        lines: list[Line] = []
        if source == "-":
            image = self._import(request.body, platform, comment, query.all("changes"))
        else:
            address = source if "://" in source else f"http://{source}"
            if urlsplit(address).scheme not in ("http", "https"):
                raise InvalidParameter(f'Get "{address}": unsupported protocol scheme "{urlsplit(address).scheme}"')
            lines.append(progress.message(f"Downloading from {address}"))
            image = self._fetch(address, request, platform, comment)
        if reference is not None:
            self._publish("tag", self._images.tag(image, reference), reference.familiar)
        self._publish("import", image)
        lines.append(progress.message(image.id))
        return Response(200, b"".join(json_line(line, b"\r\n") for line in lines), {}, "application/json")

    def _fetch(self, address: str, request: Request, platform: Platform, comment: str) -> Image:
        place = self._scratch()
        try:
            fetched = fetch(address, place, cancelled=request.client_gone, limit=_LARGEST_IMPORT)
            with fetched.path.open("rb") as file:
                return self._import(file, platform, comment, request.query.all("changes"))
        finally:
            remove_tree(place)

    def _scratch(self) -> Path:
        return self._daemon.config.data_root / "tmp" / f"import-{secrets.token_hex(8)}"

    def _import(self, stream: Source, platform: Platform, comment: str, changes: list[str]) -> Image:
        return import_tar(
            self._images,
            stream,
            architecture=platform.architecture,
            variant=platform.variant,
            comment=comment,
            changes=changes,
            engine_version=engine_version(),
        )

    def _publish(self, action: str, image: Image, name: str = "") -> None:
        self._daemon.events.publish("image", action, image.id, {**image.labels, "name": name or image.id})

    # --- for the daemon ----------------------------------------------------------------------------------------------

    def layers_of_containers(self) -> Iterator[str]:
        """The layers that containers stand on, also where their image was removed by force."""
        for record in self._daemon.containers.table:
            yield from record.layers


class _Load:
    """The lines of a load, which goes on in a thread of its own; a client that goes away breaks it off."""

    def __init__(self, routes: ImageRoutes, request: Request) -> None:
        self._routes = routes
        self._request = request
        self._lines: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        self._quiet = request.query.flag("quiet")
        self._gone = threading.Event()
        self._meters: dict[str, progress.Meter] = {}
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while not self._ended:
            try:
                line = self._lines.get(timeout=_PATIENCE_SECONDS)
            except queue.Empty:
                if self._request.client_gone():
                    break
                continue
            if line is None:
                self._ended = True
                break
            return json_line(line, b"\r\n")
        self.close()
        raise StopIteration

    def close(self) -> None:
        """Wait for its end; before that, have it break off."""
        self._gone.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for loaded in load(self._routes._images, self._request.body, self._progress):
                for line in self._routes.loaded(loaded):
                    self._lines.put(line)
        except (EngineError, OSError) as error:
            self._lines.put(progress.failure(str(error)))
        except Exception as error:
            _log.exception("load failed")
            self._lines.put(progress.failure(str(error)))
        self._lines.put(None)

    def _progress(self, diff_id: str, current: int, total: int) -> None:
        if self._gone.is_set():
            raise EngineError("the client has gone")
        if self._quiet:
            return
        meter = self._meters.get(diff_id)
        if meter is None:
            name = diff_id[7 : 7 + _SHORT]
            meter = self._meters[diff_id] = progress.Meter(self._lines.put, name, "Loading layer", total)
        meter(current)


def _reference(repository: str, tag: str) -> Reference | None:
    """The name that parameters `repo` and `tag` give; None without a repository.

    Raises:
        InvalidParameter: they give none that is one.
    """
    if not repository:
        return None
    reference = Reference.parse(repository)
    if reference.digest:
        raise InvalidParameter("refusing to create a tag with a digest reference")
    return (reference.with_tag(tag) if tag else reference).with_default_tag()


def import_image(daemon: Daemon, request: Request) -> Response:
    """POST /images/create with `fromSrc`, which the module for transfers hands over.

    Raises:
        EngineError: what stands against it.
    """
    return ImageRoutes(daemon).take_import(request)


def register(router: Router, daemon: Daemon) -> None:
    """Add the calls to the router; the store is put in order when the daemon starts."""
    routes = ImageRoutes(daemon)
    router.add("GET", "/images/json", routes.list_all)
    router.add("GET", "/images/get", routes.save_several)
    router.add("POST", "/images/load", routes.load)
    router.add("POST", "/images/prune", routes.prune)
    router.add("GET", "/images/{name*}/json", routes.inspect)
    router.add("GET", "/images/{name*}/history", routes.history)
    router.add("GET", "/images/{name*}/get", routes.save_one)
    router.add("POST", "/images/{name*}/tag", routes.tag)
    router.add("DELETE", "/images/{name*}", routes.remove)
    daemon.on_disk_usage("image", routes.usage)

    def recover() -> None:
        daemon.images.add_layer_user(routes.layers_of_containers)
        daemon.images.recover()

    daemon.on_start(recover)
