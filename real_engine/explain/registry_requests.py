"""Requests to registries and the coming of layers, as steps that are told."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from real_engine.explain import recorder
from real_engine.explain.reasons import WHY

if TYPE_CHECKING:
    from real_engine.registry.layer_stream import LayerStream
    from real_engine.registry.manifests import Descriptor
    from real_engine.registry.transport import Reply

_PATH = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|tags|referrers)/(?P<reference>.*)")


def operation_of(method: str, url: str) -> str:
    """The name, in `reasons.WHY`, of what a request to a registry is for (OCI distribution-spec v1.1)."""
    path = urlsplit(url).path
    if path == "/v2/":
        return "RegistryPing"
    matched = _PATH.fullmatch(path)
    if matched is None:
        return "RegistryToken" if "/v2/" not in path and method in ("GET", "POST") else "RegistryRequest"
    kind, reference = matched["kind"], matched["reference"]
    if kind == "manifests":
        if method == "PUT":
            return "PutManifest"
        if method == "HEAD":
            return "ManifestDigest"
        return "Manifest"
    if kind == "blobs":
        if reference.startswith("uploads"):
            return "RegistryUpload"
        return "RegistryBlob" if method == "HEAD" else "FetchBlob"
    return "RegistryRequest"


def observe_reply(reply: Reply, method: str, begin: float) -> None:
    """Let an answer tell at its end what was asked, how much came, and how long that took.

    A query is left out where it may hold what nobody is to see: of addresses that the registry redirected to.
    """
    listener = recorder.current()
    head = time.perf_counter()
    if listener is None:
        return
    within = recorder.whole(listener)
    if isinstance(within, _Fetching):
        within.own_seconds += head - begin

    def closed(ended: Reply) -> None:
        parts = urlsplit(ended.url)
        call = f"{method} {parts.scheme}://{parts.netloc}{parts.path}"
        operation = operation_of(method, ended.url)
        within.tell(
            recorder.step_record(
                "registry",
                operation,
                f"{call} → {ended.status}",
                WHY[operation],
                begin,
                time.perf_counter(),
                None,
                status=ended.status,
                bytes=ended.received,
                head_seconds=head - begin,
            )
        )

    reply.on_close = closed


class _Fetching(recorder.Whole):
    """Where the requests for a layer are told: a request's own time is what passed until its answer began.

    The layer's bytes come while it is verified and unpacked, and these steps are told with times of their own.
    """

    def __init__(self, outer: recorder.Whole) -> None:
        super().__init__(outer.listener, outer.depth)
        self._around = outer
        self.own_seconds = 0.0

    def tell(self, record: recorder.Json, *, claims: bool = True) -> None:
        """Tell of a request."""
        if "head_seconds" in record:
            record["own_seconds"] = round(record["head_seconds"], 9)
        self._around.tell(record, claims=False)


class LayerTold:
    """A layer's stream that is read through this, so that waiting and verifying can be told from unpacking."""

    def __init__(self, stream: LayerStream, descriptor: Descriptor, diff_id: str) -> None:
        self._stream = stream
        self._descriptor = descriptor
        self._diff_id = diff_id
        self._reading = 0.0
        self._begin = 0.0
        self._outer: recorder.Whole | None = None

    def read(self, size: int = -1, /) -> bytes:
        """As the stream's own."""
        begin = time.perf_counter()
        try:
            return self._stream.read(size) if size >= 0 else self._stream.read()
        finally:
            self._reading += time.perf_counter() - begin

    def __enter__(self) -> Any:
        listener = recorder.current()
        if listener is None:
            return self._stream
        self._outer = recorder.whole(listener)
        self._fetching = _Fetching(self._outer)
        self._inside = recorder.inside(self._fetching)
        self._inside.__enter__()
        self._begin = time.perf_counter()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._outer is None:
            return
        end = time.perf_counter()
        self._inside.__exit__(None, None, None)
        more: dict[str, Any] = {} if error is None else {"error": str(error)}
        begin = self._begin + self._fetching.own_seconds
        until = max(begin, self._begin + self._reading)
        name = str(self._descriptor.digest)[:19]
        for operation, call, first, last, told in (
            ("VerifyLayer", f"sha256({name}…), write(blobs/sha256/…)", begin, until, {"bytes": self._descriptor.size}),
            ("ExtractLayer", f"openat2, write, … beneath layers/{self._diff_id[7:19]}…/diff", until, end, {}),
        ):
            why = WHY[operation]
            step = recorder.step_record("store", operation, call, why, first, last, None, **told, **more)
            self._outer.tell(step, claims=False)


def layer_told(stream: LayerStream, descriptor: Descriptor, diff_id: str) -> LayerTold:
    """A context whose value gives the stream's bytes, and which tells of them where somebody listens."""
    return LayerTold(stream, descriptor, diff_id)
