"""RUN: a container made from the image so far, whose changes become a layer."""

import os
import posixpath
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from real_engine.errors import EngineError, InvalidParameter
from real_engine.images.build import instructions as ins
from real_engine.images.build.committing import ENGINE_MOUNTPOINTS, remove_mountpoints
from real_engine.images.build.configuration import complete, shell
from real_engine.images.build.copying import CopySource, copy_into, digest_of, find_sources
from real_engine.images.build.dockerfile import parse_heredoc
from real_engine.images.build.run_mounts import RunMount, as_container_mount, check_available, parse_mount
from real_engine.images.build.stage import BuildFailed
from real_engine.images.build.trees import Tree

if TYPE_CHECKING:
    from real_engine.images.build.build import Build
    from real_engine.images.build.stage import StageState

_SCRIPTS = "/dev/pipes"  # where a here-document that is a program of its own (#!) appears


class RunStep:
    """One RUN instruction of a build."""

    def __init__(self, build: "Build", state: "StageState", instruction: ins.Run) -> None:
        self.build = build
        self.state = state
        self.instruction = instruction
        self.mounts: list[dict[str, Any]] = []
        self.targets: list[str] = []
        self._stack = ExitStack()

    def do(self) -> None:
        """Take it from the cache, or run it and commit.

        Raises:
            BuildFailed: the program failed.
            EngineError: it can't be run, or a mount can't be made.
        """
        with self._stack:
            self._do()

    def _do(self) -> None:
        build, state = self.build, self.state
        words, script = self._words()
        arguments = state.arguments.beside(state.config.get("Env") or ())
        mounts = self._parse_mounts()
        saved = self._identity(words, arguments, mounts)
        probe = complete(state.config, Cmd=saved)
        if saved:
            probe["Entrypoint"] = None
        if build.use_cached(state, probe):
            return
        self._prepare_mounts(mounts)
        if script is not None:
            self._prepare_script(script)
        host_config = build.options.host_config()
        if self.instruction.network:
            host_config["NetworkMode"] = self.instruction.network
        host_config["Mounts"] = self.mounts
        config = complete(
            state.config,
            Cmd=words,
            Env=[*(state.config.get("Env") or ()), *arguments],
            Entrypoint=[""],
            Healthcheck={"Test": ["NONE"]},
        )
        container = build.builder.runner.create(state.image, config, host_config)
        build.began(container)
        result = None
        try:
            result = build.builder.runner.run(container, self._write, build.cancelled)
        finally:
            build.output.flush()
            if result is None:  # it never ran: nobody has any use for it
                build.forget(container)
        build.check_cancelled()
        if result.exit_code:
            raise BuildFailed(
                f"The command '{' '.join(words)}' returned a non-zero code: {result.exit_code}", result.exit_code
            )
        remove_mountpoints(result.upper, result.lower, [*ENGINE_MOUNTPOINTS, *self.targets])
        removed_after = build.options.remove or build.options.force_remove
        build.commit(state, probe, build.layer(result.upper, take=removed_after), container)

    def _write(self, stream: str, data: bytes) -> None:
        """What the step writes; when nobody reads it any more, the step ends, however much it has to say."""
        self.build.check_cancelled()
        self.build.output.write(stream, data)

    def _words(self) -> tuple[list[str], str | None]:
        """The words to run, and a here-document that is a program by itself.

        One here-document alone is the shell's script; more, or one inside of a command, are left to the shell.
        """
        instruction = self.instruction
        words = list(instruction.words)
        script = None
        if instruction.documents and instruction.shell:
            first = instruction.documents[0]
            if len(words) == 1 and parse_heredoc(words[0]) is not None:
                if first.text.startswith("#!"):
                    return [f"{_SCRIPTS}/{posixpath.basename(first.name)}"], first.text
                words = [first.text]
            else:
                documents = "".join(f"\n{document.content}{document.name}" for document in instruction.documents)
                words = [words[0] + documents]
        return ([*shell(self.state.config), *words] if instruction.shell else words), script

    def _identity(self, words: list[str], arguments: list[str], mounts: list[RunMount]) -> list[str]:
        """The command by which the cache knows the step: with its build arguments, mounts and network."""
        counted = [
            argument for argument in arguments if self.state.arguments.counts_for_cache(argument.partition("=")[0])
        ]
        saved = [f"|{len(counted)}", *counted, *words] if arguments else list(words)
        special = [f"--mount={text}" for text in self.instruction.mounts]
        special += [f"--mount-content={self._content(mount)}" for mount in mounts if mount.kind == "bind"]
        if self.instruction.network:
            special.append(f"--network={self.instruction.network}")
        if special:
            return [*special, *saved]
        return saved

    # --- mounts ------------------------------------------------------------------------------------------------------

    def _parse_mounts(self) -> list[RunMount]:
        found = []
        for text in self.instruction.mounts:
            try:
                mount = parse_mount(text, self.state.config.get("WorkingDir") or "/")
                if check_available(mount):
                    found.append(mount)
            except EngineError as error:
                raise error.reworded(f"dockerfile line {self.instruction.number}: {error}") from error
        return found

    def _source(self, mount: RunMount) -> CopySource:
        """What a bind mount shows."""
        tree = self.build.files_of(self.build.origin(mount.origin, self.state.platform)) if mount.origin else None
        found = find_sources(tree or self.build.context, mount.source or ".")
        if len(found) != 1:
            raise InvalidParameter(f"the source of a mount is one file or directory: {mount.source}")
        return found[0]

    def _content(self, mount: RunMount) -> str:
        return digest_of([self._source(mount)])

    def _prepare_mounts(self, mounts: list[RunMount]) -> None:
        for mount in mounts:
            self.targets.append(mount.target)
            if mount.kind == "tmpfs":
                self.mounts.append(as_container_mount(mount, None))
            elif mount.kind == "cache":
                directory = self._stack.enter_context(self.build.builder.caches.borrowed(mount))
                if mount.origin and not os.listdir(directory):
                    self._copy(mount, directory)
                self.mounts.append(as_container_mount(mount, directory))
            else:
                # A copy of its own: what the step may write there is nobody else's, and goes with the build.
                directory = self.build.fresh("mount")
                self._copy(mount, directory / "content")
                self.mounts.append(as_container_mount(mount, directory / "content"))

    def _copy(self, mount: RunMount, target: Path) -> None:
        root = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            copy_into(Tree(root), self._source(mount), f"/{target.name}", None, None)
        finally:
            os.close(root)

    def _prepare_script(self, text: str) -> None:
        directory = self.build.fresh("script")
        name = posixpath.basename(self.instruction.documents[0].name)
        path = directory / name
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        path.chmod(0o755)
        directory.chmod(0o755)
        script = RunMount("bind", f"{_SCRIPTS}/{name}")
        self.mounts.append(as_container_mount(script, path))
