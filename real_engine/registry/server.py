"""The registry's REST API: every endpoint of the OCI distribution specification 1.1, over a `Storage`.

The order of the functions is that of the specification's table of endpoints (end-1 to end-12), and `_catalog`, which
Docker's registry has beside them.
"""

import logging
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

from real_engine.errors import EngineError
from real_engine.http import Request, Response
from real_engine.registry import media_types
from real_engine.registry.errors import RegistryError
from real_engine.registry.manifests import parse_manifest
from real_engine.registry.names import Digest, is_name, parse_digest
from real_engine.registry.passwords import Passwords
from real_engine.registry.ranges import byte_range
from real_engine.registry.storage import Storage
from real_engine.registry.uploads import Uploads

MOST_REFERRERS = 1000
"""Descriptors on a page of the list of referrers, so that it stays below what clients take for a manifest."""

_log = logging.getLogger("onggi.registry")
_HEADERS = {"Docker-Distribution-Api-Version": "registry/2.0", "X-Content-Type-Options": "nosniff"}
_CHALLENGE = 'Basic realm="onggi registry", charset="UTF-8"'
_MOST_DRAINED_BYTES = 16 << 20
_STALL_SECONDS = 60.0
_CONTENT_RANGE = re.compile(r"(?:bytes )?(\d{1,18})-(\d{1,18})(?:/.*)?")
_Endpoint = Callable[["Registry", Request, str, str], Response]


class Registry:
    """Answers the requests of a registry; made for `real_engine.http.Server`. Safe for threads."""

    def __init__(
        self,
        storage: Storage,
        passwords: Passwords | None = None,
        read_only: bool = False,
        deletable: bool = True,
    ) -> None:
        self.storage = storage
        self.uploads = Uploads(storage)
        self._passwords = passwords
        self._read_only = read_only
        self._deletable = deletable

    def __call__(self, request: Request) -> Response:
        """Answer a request; whatever is wrong with it is an answer too."""
        request.limit_stalls(_STALL_SECONDS)
        try:
            response = self._answer(request)
        except RegistryError as error:
            response = _error(error)
        except ConnectionError:
            raise
        except OSError as error:
            _log.error("%s %s: %s", request.method, request.path, error)
            response = _error(
                RegistryError("UNKNOWN", error.strerror or "input or output failed", status=_status(error))
            )
        if response.status >= 400 and not request.body.awaited:
            # Who is still sending hears nothing; a connection that is closed on them takes the answer back.
            request.body.discard(_MOST_DRAINED_BYTES)
        response.headers = _HEADERS | response.headers
        return response

    def _answer(self, request: Request) -> Response:
        if self._passwords is not None and self._passwords.check(request.headers.get("Authorization")) is None:
            response = _error(RegistryError("UNAUTHORIZED", "authentication required"))
            response.headers["WWW-Authenticate"] = _CHALLENGE
            return response
        for pattern, methods in _ENDPOINTS:
            matched = pattern.fullmatch(request.path)
            if matched is None:
                continue
            endpoint = methods.get(request.method)
            if endpoint is None:
                error = RegistryError("UNSUPPORTED", "the operation is unsupported", request.method)
                response = _error(error)
                response.headers["Allow"] = ", ".join(methods)
                return response
            groups = matched.groupdict()
            name = groups.get("name", "")
            if name and not is_name(name):
                raise RegistryError("NAME_INVALID", "invalid repository name", name)
            self._check_allowed(request.method)
            return endpoint(self, request, name, groups.get("rest", ""))
        raise RegistryError("UNSUPPORTED", "there is no such endpoint", request.path, status=404)

    def _check_allowed(self, method: str) -> None:
        if method in ("GET", "HEAD"):
            return
        if self._read_only:
            raise RegistryError("UNSUPPORTED", "this registry is read-only", method)
        if method == "DELETE" and not self._deletable:
            raise RegistryError("UNSUPPORTED", "this registry deletes nothing", method)

    def _base(self, _request: Request, _name: str, _rest: str) -> Response:
        return Response.json({})

    # Blobs

    def _get_blob(self, request: Request, name: str, rest: str) -> Response:
        digest = _digest(rest)
        size = self.storage.blob_size(name, digest)
        headers = _identity(digest) | {"Accept-Ranges": "bytes", "Cache-Control": "max-age=31536000"}
        if _has_already(request, digest):
            return Response(304, headers=headers)
        if request.method == "HEAD":
            self.storage.keep_blob(name, digest)
            return Response(200, b"", headers | {"Content-Length": str(size)}, "application/octet-stream")
        part = byte_range(request.headers.get("Range"), size)
        condition = request.headers.get("If-Range")
        if part is None or (condition and condition != headers["ETag"]):
            body = self.storage.open_blob(name, digest)
            return Response(200, body, headers | {"Content-Length": str(size)}, "application/octet-stream")
        if not part:
            response = _error(RegistryError("RANGE_INVALID", "no such range", request.headers.get("Range")))
            response.headers["Content-Range"] = f"bytes */{size}"
            return response
        body = self.storage.open_blob(name, digest)
        body.seek(part.start)
        headers |= {
            "Content-Length": str(len(part)),
            "Content-Range": f"bytes {part.start}-{part.stop - 1}/{size}",
        }
        return Response(206, body, headers, "application/octet-stream")

    def _delete_blob(self, _request: Request, name: str, rest: str) -> Response:
        self.storage.delete_blob(name, _digest(rest))
        return Response(202)

    # Uploads

    def _begin_upload(self, request: Request, name: str, _rest: str) -> Response:
        mounted = parse_digest(request.query.get("mount"))
        if mounted is not None:
            source = request.query.get("from") or None
            if (source is None or is_name(source)) and self.storage.mount_blob(name, mounted, source):
                return _created(name, mounted)
        text = request.query.get("digest")
        digest = _digest(text) if text else None
        upload = self.uploads.begin(name)
        if digest is None:
            return self._upload_status(name, upload, 0, 202)
        try:
            self.uploads.append(name, upload, request.body)
            self.uploads.finish(name, upload, digest)
        except BaseException:
            # Nobody knows this upload's id, so nobody will come back to it.
            self._cancel_quietly(name, upload)
            raise
        return _created(name, digest)

    def _continue_upload(self, request: Request, name: str, upload: str) -> Response:
        offset = self._append(request, name, upload)
        return self._upload_status(name, upload, offset, 202)

    def _finish_upload(self, request: Request, name: str, upload: str) -> Response:
        digest = _digest(request.query.get("digest"))
        self._append(request, name, upload)
        self.uploads.finish(name, upload, digest)
        return _created(name, digest)

    def _get_upload(self, _request: Request, name: str, upload: str) -> Response:
        return self._upload_status(name, upload, self.uploads.offset(name, upload), 204)

    def _cancel_upload(self, _request: Request, name: str, upload: str) -> Response:
        self.uploads.cancel(name, upload)
        return Response(204)

    def _append(self, request: Request, name: str, upload: str) -> int:
        """Add the body to an upload, after a look at where it says that it belongs."""
        text = request.headers.get("Content-Range")
        if not text:
            return self.uploads.append(name, upload, request.body)
        matched = _CONTENT_RANGE.fullmatch(text.strip())
        if matched is None or int(matched[2]) < int(matched[1]):
            raise RegistryError("BLOB_UPLOAD_INVALID", "no Content-Range that makes sense", text, status=416)
        first, last = int(matched[1]), int(matched[2])
        length = request.body.length
        if length is not None and length != last - first + 1:
            raise RegistryError("SIZE_INVALID", "Content-Range and Content-Length differ", text)
        before = self.uploads.offset(name, upload)
        offset = self.uploads.append(name, upload, request.body, first)
        if offset - before != last - first + 1 and length is None:
            raise RegistryError("SIZE_INVALID", "the body was not as long as Content-Range says", text)
        return offset

    def _cancel_quietly(self, name: str, upload: str) -> None:
        try:
            self.uploads.cancel(name, upload)
        except RegistryError:
            return  # it was thrown away already, since its digest was wrong

    def _upload_status(self, name: str, upload: str, offset: int, status: int) -> Response:
        headers = {
            "Location": f"/v2/{name}/blobs/uploads/{upload}",
            "Docker-Upload-UUID": upload,
            "Range": f"0-{max(offset - 1, 0)}",
        }
        return Response(status, headers=headers)

    # Manifests

    def _get_manifest(self, request: Request, name: str, reference: str) -> Response:
        digest, media_type, content = self.storage.manifest(name, reference)
        accepted = _accepted(request)
        if not _accepts(accepted, media_type):
            digest, media_type, content = self._acceptable(name, reference, media_type, content, accepted)
        headers = _identity(digest)
        if _has_already(request, digest):
            return Response(304, headers=headers)
        return Response(200, content, headers, media_type)

    def _acceptable(
        self, name: str, reference: str, media_type: str, content: bytes, accepted: list[str]
    ) -> tuple[Digest, str, bytes]:
        """For a client that asked by tag and knows no lists: the image for linux/amd64 (as Docker's registry does).

        Raises:
            RegistryError: MANIFEST_UNKNOWN, since what is there can't be given to it.
        """
        if parse_digest(reference) is None and media_type in media_types.INDEXES:
            for child in parse_manifest(content, media_type).manifests:
                if (child.platform.get("os"), child.platform.get("architecture")) == ("linux", "amd64"):
                    found = self.storage.manifest(name, str(child.digest))
                    if _accepts(accepted, found[1]):
                        return found
        raise RegistryError(
            "MANIFEST_UNKNOWN",
            f"manifest of type {media_type} found, but the Accept header does not take it",
            reference,
        )

    def _put_manifest(self, request: Request, name: str, reference: str) -> Response:
        content = _bounded(request)
        digest, manifest = self.storage.put_manifest(name, reference, content, request.headers.get("Content-Type"))
        headers = {"Location": f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": str(digest)}
        if manifest.subject is not None:
            headers["OCI-Subject"] = str(manifest.subject.digest)
        return Response(201, headers=headers)

    def _delete_manifest(self, _request: Request, name: str, reference: str) -> Response:
        self.storage.delete_manifest(name, reference)
        return Response(202)

    # Lists

    def _tags(self, request: Request, name: str, _rest: str) -> Response:
        page, link = _page(request, self.storage.tags(name), f"/v2/{name}/tags/list")
        return Response.json({"name": name, "tags": page}, headers=link)

    def _catalog(self, request: Request, _name: str, _rest: str) -> Response:
        page, link = _page(request, self.storage.repositories(), "/v2/_catalog")
        return Response.json({"repositories": page}, headers=link)

    def _referrers(self, request: Request, name: str, rest: str) -> Response:
        subject = _digest(rest)
        descriptors = self.storage.referrers(name, subject)
        headers = {}
        wanted = request.query.get("artifactType")
        if wanted:
            descriptors = [one for one in descriptors if one.get("artifactType") == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        last = request.query.get("last")
        rest_of = [one for one in descriptors if one["digest"] > last]
        if len(rest_of) > MOST_REFERRERS:
            rest_of = rest_of[:MOST_REFERRERS]
            parameters = {"last": rest_of[-1]["digest"]} | ({"artifactType": wanted} if wanted else {})
            headers["Link"] = f'</v2/{name}/referrers/{subject}?{urlencode(parameters)}>; rel="next"'
        index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": rest_of}
        response = Response.json(index, headers=headers)
        response.content_type = media_types.OCI_INDEX
        return response


def _endpoints() -> list[tuple[re.Pattern[str], dict[str, _Endpoint]]]:
    table: list[tuple[str, dict[str, _Endpoint]]] = [
        (r"/v2/?", {"GET": Registry._base, "HEAD": Registry._base}),
        (r"/v2/_catalog", {"GET": Registry._catalog}),
        (r"/v2/(?P<name>.+)/tags/list", {"GET": Registry._tags}),
        (r"/v2/(?P<name>.+)/referrers/(?P<rest>[^/]+)", {"GET": Registry._referrers}),
        (r"/v2/(?P<name>.+)/blobs/uploads/?", {"POST": Registry._begin_upload}),
        (
            r"/v2/(?P<name>.+)/blobs/uploads/(?P<rest>[^/]+)",
            {
                "GET": Registry._get_upload,
                "PATCH": Registry._continue_upload,
                "PUT": Registry._finish_upload,
                "DELETE": Registry._cancel_upload,
            },
        ),
        (
            r"/v2/(?P<name>.+)/blobs/(?P<rest>[^/]+)",
            {"GET": Registry._get_blob, "HEAD": Registry._get_blob, "DELETE": Registry._delete_blob},
        ),
        (
            r"/v2/(?P<name>.+)/manifests/(?P<rest>[^/]+)",
            {
                "GET": Registry._get_manifest,
                "HEAD": Registry._get_manifest,
                "PUT": Registry._put_manifest,
                "DELETE": Registry._delete_manifest,
            },
        ),
    ]
    return [(re.compile(pattern), methods) for pattern, methods in table]


_ENDPOINTS = _endpoints()


def _error(error: RegistryError) -> Response:
    fields: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.detail is not None:
        fields["detail"] = error.detail
    return Response.json({"errors": [fields]}, error.status)


def _status(error: OSError) -> int:
    """507 when there is no room, so that who pushes learns that trying again is of no use."""
    from errno import EDQUOT, ENOSPC

    return 507 if error.errno in (ENOSPC, EDQUOT) else 500


def _digest(text: str) -> Digest:
    digest = parse_digest(text)
    if digest is None:
        raise RegistryError("DIGEST_INVALID", "no digest that can be checked: sha256 and sha512 can", text)
    return digest


def _identity(digest: Digest) -> dict[str, str]:
    return {"Docker-Content-Digest": str(digest), "ETag": f'"{digest}"'}


def _created(name: str, digest: Digest) -> Response:
    headers = {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": str(digest)}
    return Response(201, headers=headers)


def _has_already(request: Request, digest: Digest) -> bool:
    """Whether `If-None-Match` names what we would send."""
    known = {tag.removeprefix("w/").strip('"') for tag in request.headers.tokens("If-None-Match")}
    return str(digest) in known or "*" in known


def _accepted(request: Request) -> list[str]:
    """Media types that the client takes, without parameters; empty if it didn't say."""
    accepted = []
    for entry in request.headers.tokens("Accept"):
        media_type, _, parameters = entry.partition(";")
        if re.search(r"(^|;)\s*q=0(\.0*)?\s*(;|$)", parameters) is None:
            accepted.append(media_type.strip())
    return accepted


def _accepts(accepted: list[str], media_type: str) -> bool:
    return not accepted or media_type in accepted or "*/*" in accepted or "application/*" in accepted


def _bounded(request: Request) -> bytes:
    """The body, if it is no longer than a manifest may be."""
    limit = media_types.MANIFEST_LIMIT_BYTES
    if request.body.length is None or request.body.length <= limit:
        try:
            return request.read_all(limit)
        except EngineError:
            pass
    raise RegistryError("SIZE_INVALID", f"a manifest has at most {limit} bytes here", status=413)


def _page(request: Request, names: list[str], path: str) -> tuple[list[str], dict[str, str]]:
    """The part of `names` that was asked for by `n` and `last`, and a link to the next one if there is one."""
    last = request.query.get("last")
    if last:
        names = [name for name in names if name > last]
    text = request.query.get("n")
    if not text:
        return names, {}
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise RegistryError("PAGINATION_NUMBER_INVALID", "invalid number of results requested", {"n": text})
    count = int(text)
    if count == 0 or count >= len(names):
        return names[:count], {}
    names = names[:count]
    return names, {"Link": f'<{path}?last={quote(names[-1], safe="")}&n={count}>; rel="next"'}
