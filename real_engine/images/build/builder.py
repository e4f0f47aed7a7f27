"""The builder: one build after the other or several at once, each from its context to an image."""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from real_engine.errors import EngineError, InvalidParameter
from real_engine.explain.recorder import span
from real_engine.images.archive import Policy, extract
from real_engine.images.build.build import Build
from real_engine.images.build.context import BuildContext, of_dockerfile, receive
from real_engine.images.build.dockerfile import parse_dockerfile
from real_engine.images.build.downloads import fetch, is_address, is_git
from real_engine.images.build.instructions import Label, parse_plan
from real_engine.images.build.options import BuildOptions, Platform
from real_engine.images.build.output import BuildOutput, short_id
from real_engine.images.build.run_mounts import CacheDirectories
from real_engine.images.build.steps import StepRunner
from real_engine.images.disk_errors import disk_errors_told
from real_engine.images.references import Reference
from real_engine.images.trees import remove_tree

if TYPE_CHECKING:
    from real_engine.images.store import Image, ImageStore

_TEXT_TYPES = ("text/plain",)
LARGEST_CONTEXT = 64 << 30  # bytes, uncompressed


class Pull(Protocol):
    """Fetches an image from a registry into the store."""

    def __call__(
        self,
        reference: Reference,
        platform: Platform | None,
        credentials: Mapping[str, Any],
        progress: Callable[[bytes], None],
        cancelled: Callable[[], bool],
    ) -> None:
        """Pull `reference`; `progress` takes the lines to show.

        Raises:
            EngineError: as Docker words it.
        """


class Builder:
    """Builds images into a store. What it needs meanwhile is beneath `directory`, which is emptied now.

    The caches of `RUN --mount=type=cache` outlive builds: they are in `cache_directory`, or beside `directory`.

    `runner` runs the RUN steps, `pull` fetches base images that aren't there, and `tagged` is told of each name given.
    """

    def __init__(
        self,
        images: "ImageStore",
        runner: StepRunner,
        directory: Path,
        pull: Pull | None = None,
        tagged: "Callable[[Image, Reference], None] | None" = None,
        engine_version: str = "",
        cache_directory: Path | None = None,
    ) -> None:
        self.images = images
        self.runner = runner
        self.directory = directory
        self.engine_version = engine_version
        self._pull = pull
        self._tagged = tagged
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in os.scandir(directory):
            remove_tree(entry.path)
        self.caches = CacheDirectories(cache_directory or directory.with_name("build-cache"))

    @disk_errors_told()
    def build(
        self,
        options: BuildOptions,
        context: BinaryIO | str,
        output: BuildOutput,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> str:
        """Build an image from a context, a tar or an address; returns its id. Nothing of a failed build is left.

        Raises:
            BuildFailed: a step failed, with its exit code.
            EngineError: anything else that was wrong, in Docker's words.
        """
        names = [_reference(tag) for tag in options.tags]
        with self._working_directory() as directory:
            with span("build", "ReceiveContext", "tar -x beneath builds/…"):
                received = self._receive(context, directory, output, cancelled)
            try:
                name, content = received.dockerfile(options.dockerfile)
                dockerfile = parse_dockerfile(content, name)
                plan = parse_plan(dockerfile)
                stages = list(plan.stages)
                if options.target:
                    last = plan.index(options.target)
                    if last is None:
                        raise InvalidParameter(f"failed to reach build target {options.target} in Dockerfile")
                    stages = stages[: last + 1]
                if stages:
                    stages[-1].instructions.extend(
                        Label(f"LABEL {key}={value}", 0, ((key, value),), literal=True)
                        for key, value in sorted(options.labels.items())
                    )
                if dockerfile.warnings:
                    output.warn("\n".join(dockerfile.warnings) + "\n")
                build = Build(self, options, received, directory, output, cancelled, dockerfile.escape)
                image = build.run(plan.arguments, stages)
            except RecursionError as error:
                raise InvalidParameter("the build context has directories that are nested too deeply") from error
            finally:
                received.close()
        if options.quiet:
            output.result(f"{image.id}\n")
        else:
            output.print(f"Successfully built {short_id(image.id)}\n")
        for reference in names:
            self.images.tag(image, reference)
            if self._tagged is not None:
                self._tagged(image, reference)
            output.print(f"Successfully tagged {reference.familiar}\n")
        return image.id

    def pull(
        self,
        reference: Reference,
        platform: Platform | None,
        options: BuildOptions,
        output: BuildOutput,
        cancelled: Callable[[], bool],
    ) -> None:
        """Fetch a base image.

        Raises:
            EngineError: it can't be, or there is no way to.
        """
        if self._pull is None:
            raise EngineError(f"pull access denied for {reference.familiar}, and this builder pulls nothing")
        self._pull(reference, platform, options.credentials, output.relay, cancelled)

    def prune(self, before_nanoseconds: int | None = None) -> tuple[list[str], int]:
        """Remove the caches of `RUN --mount=type=cache`; returns what was removed, and its bytes."""
        return self.caches.remove_unused(before_nanoseconds)

    @contextmanager
    def _working_directory(self) -> Iterator[Path]:
        directory = self.directory / secrets.token_hex(8)
        directory.mkdir(mode=0o700)
        try:
            yield directory
        finally:
            remove_tree(directory)

    def _receive(
        self, context: BinaryIO | str, directory: Path, output: BuildOutput, cancelled: Callable[[], bool]
    ) -> BuildContext:
        if not isinstance(context, str):
            return receive(context, directory, _extract, LARGEST_CONTEXT)
        if is_git(context):
            raise InvalidParameter(
                f"{context}: a git repository can't be a build context here; clone it, and build the directory"
            )
        if not is_address(context):
            raise InvalidParameter(f"unable to prepare context: {context} is no http or https address")
        output.print(f"Downloading build context from remote url: {context}\n")
        fetched = fetch(context, directory / "remote", cancelled=cancelled, limit=LARGEST_CONTEXT)
        if fetched.content_type in _TEXT_TYPES:
            return of_dockerfile(fetched.path.read_bytes(), directory)
        with fetched.path.open("rb") as file:
            return receive(file, directory, _extract, LARGEST_CONTEXT)


def _reference(tag: str) -> Reference:
    reference = Reference.parse(tag)
    if reference.digest:
        raise InvalidParameter("build tag cannot contain a digest")
    return reference.with_default_tag()


def _extract(archive: BinaryIO, root: int) -> None:
    """A context's files, with the owners and modes that their tar gives; devices have no place in one."""
    extract(archive, root, Policy(devices="skip", root_entry=False))
