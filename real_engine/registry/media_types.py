"""Media types of manifests, configurations and layers.

Sources: OCI image-spec v1.1 media-types.md; Docker's "Image Manifest Version 2, Schema 2".
"""

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_TAR = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_SCHEMA_1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
"""The form before 2015, whose digests nobody can check. It is refused everywhere here."""

INDEXES = (OCI_INDEX, DOCKER_LIST)
IMAGES = (OCI_MANIFEST, DOCKER_MANIFEST)
MANIFESTS = (*IMAGES, *INDEXES)

MANIFEST_LIMIT_BYTES = 4 * 1024 * 1024
"""The largest manifest that is taken: what the specification asks a registry to accept at least."""


def is_foreign(media_type: str) -> bool:
    """Whether a layer of this type is kept elsewhere, and must not be passed on by a registry."""
    return ".foreign." in media_type or ".nondistributable." in media_type
