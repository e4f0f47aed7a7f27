"""One build: the stages of a Dockerfile, instruction by instruction, each from the cache or made anew.

What is printed, what is recorded and when the cache is asked are the classic builder's (moby builder/dockerfile); steps
that only change the configuration get an id of their own but no container, since nothing would run in it.
"""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from real_engine.errors import EngineError, InvalidParameter, NotFound
from real_engine.explain.recorder import span
from real_engine.images import rootfs
from real_engine.images.build import instructions as ins
from real_engine.images.build.build_arguments import BuildArguments
from real_engine.images.build.cache import StageCache
from real_engine.images.build.committing import child_configuration, is_empty
from real_engine.images.build.configuration import (
    Config,
    beneath,
    complete,
    configure,
    environment,
    expand,
    no_operation,
    with_default_path,
)
from real_engine.images.build.context import BuildContext, ImageFiles
from real_engine.images.build.copy_step import CopyStep
from real_engine.images.build.options import BuildOptions, Platform
from real_engine.images.build.output import BuildOutput, short_id
from real_engine.images.build.run_step import RunStep
from real_engine.images.build.shell_words import Lexer
from real_engine.images.build.stage import StageState
from real_engine.images.build.trees import Tree
from real_engine.images.references import Reference

if TYPE_CHECKING:
    from real_engine.images.build.builder import Builder
    from real_engine.images.store import Image

_SCRATCH = "scratch"


class Build:
    """A build under way. `directory` is its own, and goes with it."""

    def __init__(
        self,
        builder: "Builder",
        options: BuildOptions,
        context: BuildContext,
        directory: Path,
        output: BuildOutput,
        cancelled: Callable[[], bool],
        escape: str,
    ) -> None:
        self.builder = builder
        self.images = builder.images
        self.options = options
        self.context = context
        self.directory = directory
        self.output = output
        self.cancelled = cancelled
        self.lexer = Lexer(escape)
        self._finished: list[tuple[str, Image | None]] = []
        self._containers: list[tuple[str, bool]] = []
        self._opened = ExitStack()
        self._image_files: dict[str, ImageFiles] = {}
        self._cache_sources = self._find_cache_sources()

    def run(self, arguments: Sequence[ins.Arg], stages: Sequence[ins.Stage]) -> "Image":
        """Build the stages in order; returns the last one's image.

        Raises:
            BuildFailed: a program failed.
            EngineError: anything else.
        """
        total = len(arguments) + sum(1 + len(stage.instructions) for stage in stages)
        steps = iter(range(1, total + 1))

        def announce(source: str) -> None:
            self.output.print(f"Step {next(steps)}/{total} : {source}")
            self.output.print("\n")

        scope = BuildArguments(self.options.arguments, (self.options.platform or Platform.host()).arguments())
        state = None
        with self._opened:
            for argument in arguments:
                announce(argument.source)
                expanded = expand(argument, self.lexer, {**scope.outer_values(), **scope.values()})
                assert isinstance(expanded, ins.Arg)
                for name, value in expanded.pairs:
                    scope.declare_outer(name, value)
            for stage in stages:
                if stage.name and any(stage.name == name for name, _ in self._finished):
                    raise InvalidParameter(f"{stage.name} stage name already used")
                announce(stage.source)
                with span("build", "BuildStep", stage.source):
                    state = self._begin(stage, scope)
                self.output.print(f" ---> {short_id(state.image_id)}\n")
                for instruction in stage.instructions:
                    if self.cancelled():
                        self.output.print("Build cancelled\n")
                    self.check_cancelled()
                    announce(instruction.source)
                    with span("build", "BuildStep", instruction.source):
                        self._dispatch(state, instruction)
                    self.output.print(f" ---> {short_id(state.image_id)}\n")
                if state.image is not None:
                    self.output.image(state.image.id)
                self._finished.append((stage.name, state.image))
            unused = scope.unused()
            if unused:
                self.output.print(f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed\n")
        if state is None or state.image is None:
            raise EngineError("No image was generated. Is your Dockerfile empty?")
        return state.image

    # --- stages ------------------------------------------------------------------------------------------------------

    def _begin(self, stage: ins.Stage, scope: BuildArguments) -> StageState:
        """FROM: the base image, its configuration, and the triggers that it brings along."""
        cache = StageCache(self.images, not self.options.no_cache, self._cache_sources)
        state = StageState(scope.stage(), cache, platform=self.options.platform)
        if stage.platform:
            text = self.lexer.expand(stage.platform, scope.outer_values())
            try:
                state.platform = Platform.parse(text)
            except InvalidParameter as error:
                raise InvalidParameter(f"failed to parse platform {text}: {error}") from error
        name = self.lexer.expand(stage.base, scope.outer_values())
        if not name:
            raise InvalidParameter(f"base name ({stage.base}) should not be blank")
        before = [image for known, image in self._finished if known and known == name.lower()]
        if before:
            state.image = before[0]
        elif name != _SCRATCH:
            state.image = self._base_image(name, state.platform)
        state.config = complete(
            state.image.config.get("config") if state.image is not None else None, OpenStdin=False, StdinOnce=False
        )
        with_default_path(state.config)
        triggers = state.config["OnBuild"] or ()
        if triggers:
            state.config["OnBuild"] = None
            self.output.print(f"# Executing {len(triggers)} build trigger{'s' if len(triggers) > 1 else ''}\n")
            for trigger in triggers:
                self._dispatch(state, ins.parse_trigger(trigger))
        return state

    def _base_image(self, name: str, platform: Platform | None) -> "Image":
        """An image of the store, pulled if it isn't there or `--pull` was said."""
        if not self.options.pull:
            try:
                image = self.images.base(name)
            except NotFound:
                image = None
            if image is not None and (platform is None or platform.architecture == image.config.get("architecture")):
                return image
        reference = Reference.parse(name)
        if not reference.digest:
            reference = reference.with_default_tag()
        self.builder.pull(reference, platform, self.options, self.output, self.cancelled)
        return self.images.resolve(reference.canonical)

    def _find_cache_sources(self) -> "tuple[Image, ...]":
        """The images of `--cache-from` that are here; Docker passes over the others too."""
        found = []
        for name in self.options.cache_from:
            try:
                found.append(self.images.resolve(name))
            except (NotFound, InvalidParameter):
                continue
        return tuple(found)

    # --- instructions ------------------------------------------------------------------------------------------------

    def _dispatch(self, state: StageState, instruction: ins.Instruction) -> None:
        """Do one instruction; then remove its container, as the options say."""
        state.config["Image"] = state.image_id
        done = False
        try:
            # A variable of the environment hides an argument of that name.
            variables = {**state.arguments.values(), **environment(state.config)}
            self._do(state, expand(instruction, self.lexer, variables))
            done = True
        finally:
            self._remove_containers(done)

    def _do(self, state: StageState, instruction: ins.Instruction) -> None:
        match instruction:
            case ins.Run():
                RunStep(self, state, instruction).do()
                return
            case ins.Copy():
                CopyStep(self, state, instruction).do()
                return
            case ins.Workdir():
                self._workdir(state, instruction)
                return
            case ins.Arg():
                for name, value in instruction.pairs:
                    state.arguments.declare(name, value)
                shown = (name if value is None else f"{name}={value}" for name, value in instruction.pairs)
                comment = f"ARG {' '.join(shown)}"
            case ins.Maintainer():
                state.author = instruction.name
                comment = f"MAINTAINER {instruction.name}"
            case ins.Healthcheck():
                old = (state.config.get("Healthcheck") or {}).get("Test") or []
                if old and old[0] != "NONE":
                    self.output.print(f"Note: overriding previous HEALTHCHECK: [{' '.join(old)}]\n")
                comment = configure(state.config, instruction)
            case ins.Entrypoint():
                comment = configure(state.config, instruction)
                if not state.command_set:
                    state.config["Cmd"] = None
            case _:
                comment = configure(state.config, instruction)
        self._commit_configuration(state, comment)
        if isinstance(instruction, ins.Cmd) and instruction.words:
            state.command_set = True

    def _commit_configuration(self, state: StageState, comment: str) -> None:
        """An instruction that changes no file."""
        container_config = no_operation(state.config, [comment])
        if self.use_cached(state, container_config):
            return
        identity = self._announce_step(state, container_config)
        self.commit(state, container_config, None, identity)

    def _workdir(self, state: StageState, instruction: ins.Workdir) -> None:
        container_config = no_operation(state.config, configure(state.config, instruction))
        if self.use_cached(state, container_config):
            return
        identity = self._announce_step(state, container_config)
        path = beneath("", state.config["WorkingDir"])
        with self.changed_root(state.image) as (upper, root):
            try:
                place, _ = root.make_directory(path, (0, 0))
            except NotADirectoryError as error:
                raise InvalidParameter(f"Cannot mkdir: {path} is not a directory") from error
            os.close(place)
        self.commit(state, container_config, self.layer(upper, take=True), identity)

    def _announce_step(self, state: StageState, container_config: Config) -> str:
        """Give a step that runs nothing the id that its container would have, and what making one would set."""
        identity = secrets.token_hex(32)
        self.began(identity, is_container=False)
        container_config["Hostname"] = short_id(identity)
        if state.image is not None:
            container_config["Labels"] = container_config["Labels"] or {}
        return identity

    def began(self, identity: str, is_container: bool = True) -> None:
        """Tell of a step's container, which is removed after the step as the options say."""
        self.output.print(f" ---> Running in {short_id(identity)}\n")
        self._containers.append((identity, is_container))

    def forget(self, identity: str) -> None:
        """Remove a container that never ran, and say nothing of it."""
        self._containers = [known for known in self._containers if known[0] != identity]
        self.builder.runner.remove(identity)

    def _remove_containers(self, done: bool) -> None:
        told = self.options.force_remove or (self.options.remove and done)
        containers, self._containers = self._containers, []
        for identity, is_container in containers:
            if is_container and (told or self.cancelled()):
                self.builder.runner.remove(identity)
            if told:
                self.output.print(f"Removing intermediate container {short_id(identity)}\n")

    # --- what the steps use ------------------------------------------------------------------------------------------

    def check_cancelled(self) -> None:
        """See that the client is still there.

        Raises:
            EngineError: it has gone.
        """
        if self.cancelled():
            raise EngineError("Build cancelled")

    def origin(self, name: str, platform: Platform | None) -> "Image | None":
        """The image of an earlier stage, by name or number, or another image.

        Raises:
            EngineError: there is none.
        """
        for known, image in self._finished:
            if known and known == name.lower():
                return image
        if name.lstrip("+-").isdecimal():
            number = int(name)
            if number == len(self._finished):
                raise InvalidParameter("refers to current build stage")
            if not 0 <= number < len(self._finished):
                raise InvalidParameter("index out of bounds")
            return self._finished[number][1]
        return self._base_image(name, platform)

    def files_of(self, image: "Image | None") -> ImageFiles:
        """The files of an image, mounted (in no place) for as long as the build lasts."""
        identity = image.id if image is not None else ""
        known = self._image_files.get(identity)
        if known is None:
            root = self._opened.enter_context(_root(self._lower(image)))
            known = self._image_files[identity] = ImageFiles(root)
        return known

    def fresh(self, kind: str) -> Path:
        """A new directory of the build's own."""
        directory = self.directory / f"{kind}-{secrets.token_hex(4)}"
        directory.mkdir(mode=0o700)
        return directory

    def hold(self, directory: Path) -> int:
        """Open a directory for as long as the build lasts."""
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._opened.callback(os.close, descriptor)
        return descriptor

    def use_cached(self, state: StageState, container_config: Mapping[str, Any]) -> bool:
        """Whether this step was made before: then the stage goes on from its image."""
        with span("cache", "CacheMiss") as told:
            found = state.cache.probe(state.image, container_config)
            if told.told:
                told.operation = "CacheMiss" if found is None else "CacheHit"
                told.call = state.cache.explain(state.image, container_config, found)
                told.more["hit"] = found is not None
        if found is None:
            return False
        self.output.print(" ---> Using cache\n")
        state.image = found
        return True

    @contextmanager
    def changed_root(self, image: "Image | None") -> Iterator[tuple[Path, Tree]]:
        """The image's files to be changed: the upper directory where changes go, and the tree."""
        step = self.fresh("step")
        upper, work = step / "upper", step / "work"
        upper.mkdir(mode=0o755)
        upper.chmod(0o755)
        work.mkdir(mode=0o700)
        with _root(self._lower(image), upper, work) as root:
            yield upper, Tree(root)

    def layer(self, upper: Path, *, take: bool) -> str | None:
        """Make a layer of an upper directory that isn't mounted; None if there is nothing in it.

        `take` is for one that nobody needs any more: it becomes the layer's own.
        """
        if is_empty(upper):
            return None
        with span("store", "CommitLayer") as told:
            layers = self.images.layers
            layer = layers.take(upper) if take else layers.commit(upper)
            told.call = f"tar of upper: {layer.diff_id[:19]}…, {layer.size} bytes"
        return layer.diff_id

    def commit(
        self, state: StageState, container_config: Mapping[str, Any], diff_id: str | None, container_id: str = ""
    ) -> None:
        """Make the image of a step; the stage goes on from it."""
        config = child_configuration(
            state.image,
            config=state.config,
            container_config=container_config,
            author=state.author,
            diff_id=diff_id,
            container_id=container_id,
            engine_version=self.builder.engine_version,
            target=state.platform,
        )
        with span("store", "CreateImage") as told:
            state.image = self.images.create(config, parent=state.image_id)
            told.call = f"image {state.image.id[:19]}…"

    def _lower(self, image: "Image | None") -> tuple[Path, ...]:
        """The layers of an image; for scratch an empty one, since an overlay needs something below."""
        layers = tuple(image.layers) if image is not None else ()
        if layers:
            return layers
        empty = self.directory / "empty"
        empty.mkdir(mode=0o755, exist_ok=True)
        return (empty,)


@contextmanager
def _root(lower: tuple[Path, ...], upper: Path | None = None, work: Path | None = None) -> Iterator[int]:
    """The root directory of layers that are mounted in no place."""
    # What is flushed of an upper directory is flushed with the layer that it becomes.
    with rootfs.mounted(lower, upper, work, volatile=True) as tree:
        descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)  # one that can be listed
        try:
            yield descriptor
        finally:
            os.close(descriptor)
