"""Why the engine does what is no step object of its own: requests to registries, the builder's and the store's work.

Steps whose rooms describe them themselves (`container.steps`, `networks.steps`) carry their reasons with them.
"""

WHY = {
    # images and registries
    "RegistryPing": "which version of the API the registry speaks, and what it wants to be shown",
    "RegistryToken": "a registry believes tokens of its own server, each for one repository and action",
    "ManifestDigest": "the digest that the tag means today; only looking is free of a registry's limit",
    "Manifest": "what the image is made of: its configuration and layers, each by the digest of its bytes",
    "FetchBlob": "bytes by their digest: an image's configuration or a layer; of what was cut off, only the rest",
    "RegistryBlob": "whether the registry has the bytes already",
    "RegistryUpload": "bytes go up under a place that the registry names, and get their digest at the end",
    "PutManifest": "the tag means this manifest from now on",
    "RegistryRequest": "asked of the registry",
    "ChoosePlatform": "the first entry of the index that fits this machine's architecture and variant",
    "VerifyLayer": "while it comes it is hashed and stored: bytes that are not what the manifest names are thrown away",
    "ExtractLayer": "decompressed, hashed again as the layer's diff id, and unpacked where no path leads out",
    "LayerHere": "a layer is named by its content, so one that is here already need not come again",
    "CreateImage": "an image is its configuration: a blob that names its layers, and whose digest is its id",
    "TagImage": "a name is a pointer to an id, and can be moved",
    "ResolveImage": "a name, an id or its beginning, to the configuration and the layers' directories",
    # builds
    "ReceiveContext": "the client sends the directory as a tar; it is unpacked where no name leads out of it",
    "BuildStep": "an instruction makes an image of its own upon the one before it",
    "CacheHit": "the same instruction upon the same parent was made before: its image is taken",
    "CacheMiss": "only an image made upon this parent by the same instruction and files can stand for the step",
    "CommitLayer": "what was written above the layers, as a tar in canonical order; its digest is the layer's diff id",
    # containers
    "MakeContainer": "a record, and empty directories for what it will write; nothing runs yet",
    "MountVolumes": "volumes and bind mounts are found, and held for as long as it runs",
    "TakeNamespace": "made ahead of time, so that a start need not wait for one",
    "AttachNetwork": "its places in networks, in all: addresses, cables, names, ports",
    "WriteNameFiles": "hosts, resolv.conf and hostname, which are mounted in it",
    "StartInSupervisor": "the supervisor clones it, and outlives the daemon; its steps are told above",
    "ProgramEnded": "the supervisor reaped it; by what is left in its pipes its output is whole",
    "ReleaseNetwork": "addresses and ports are free again; the cable goes with the network namespace",
    "ReleaseVolumes": "volumes are no longer in use",
    "RemoveContainer": "its directory is moved away at once, and deleted behind the client's back",
    "MakeNetwork": "written down before it is made in the kernel, so that a crash leaves nothing unknown",
}
"""The name of an operation, and why it is done."""
