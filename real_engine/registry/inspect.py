"""What a registry has under a name, without pulling it: `docker manifest`'s and a swarm's question."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from real_engine.errors import EngineError, Forbidden, NotFound
from real_engine.registry.authentication import NoCredentials
from real_engine.registry.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from real_engine.images.references import Reference
    from real_engine.registry.client import RegistryClient

_KEYS = ("architecture", "os", "os.version", "os.features", "variant")


def inspect(client: RegistryClient, reference: Reference) -> dict[str, Any]:
    """Descriptor and platforms of an image, as `GET /distribution/{name}/json` gives them.

    Raises:
        NotFound, Forbidden, EngineError: in Docker's words.
    """
    try:
        wanted = reference.digest or reference.tag
        found = client.resolve(reference.path, wanted)  # also for its error, which is the one that Docker tells
        digest, manifest = client.manifest(reference.path, found[0] if found and not reference.digest else wanted)
        if manifest.is_index:
            platforms = [_platform(one.platform) for one in manifest.manifests]
        else:
            assert manifest.config is not None
            platforms = [_platform(json.loads(client.blob(reference.path, manifest.config)))]
    except RegistryError as error:
        kinds = {"MANIFEST_UNKNOWN": NotFound, "NAME_UNKNOWN": NotFound, "DENIED": Forbidden}
        raise kinds.get(error.code, EngineError)(str(error)) from error
    except NoCredentials as error:
        raise EngineError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise EngineError(f"the configuration of {reference} is no JSON: {error}") from error
    descriptor = {"mediaType": manifest.media_type, "digest": digest, "size": len(manifest.content)}
    return {"Descriptor": descriptor, "Platforms": platforms}


def _platform(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: fields[key] for key in _KEYS if isinstance(fields, dict) and fields.get(key)}
