"""The labels by which containers, networks and volumes belong to a project: those of docker compose.

So docker-compose and this program see each other's containers. `ONEOFF` holds `True` or `False`, as Python writes it,
since docker-compose 1.29 filters by exactly that.
"""

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
NUMBER = "com.docker.compose.container-number"
ONEOFF = "com.docker.compose.oneoff"
CONFIG_HASH = "com.docker.compose.config-hash"
IMAGE = "com.docker.compose.image"
WORKING_DIRECTORY = "com.docker.compose.project.working_dir"
CONFIG_FILES = "com.docker.compose.project.config_files"
DEPENDS_ON = "com.docker.compose.depends_on"
NETWORK = "com.docker.compose.network"
VOLUME = "com.docker.compose.volume"
VERSION = "com.docker.compose.version"

WRITTEN_VERSION = "2.0.0"
"""What the label `VERSION` says: readers of it want a version of docker compose."""
