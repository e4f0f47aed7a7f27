"""A store with an image, a runner of steps on the engine's own containers, and a builder of the test's own."""

import gzip
import io
import json
import os
import secrets
import select
import shutil
import tarfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from real_engine.images.build.builder import Builder
from real_engine.images.build.options import BuildOptions, Platform
from real_engine.images.build.output import BuildOutput
from real_engine.images.build.steps import StepResult
from real_engine.images.busybox import find_busybox
from real_engine.images.references import Reference
from real_engine.images.store import ImageStore
from real_engine.linux import cgroups

APPLETS = "sh cat echo ls true false sleep stat touch rm id mkdir env pwd printf test readlink chmod wc sort ln mv"


class ContainerSteps:
    """Runs steps in containers of an `Engine`, and remembers which."""

    def __init__(self, engine, directory):
        self.engine = engine  # a function that gives it: most steps need none
        self.directory = directory
        self.created = {}
        self.ran = []
        self.host_configs = []

    def create(self, image, config, host_config):
        identity = secrets.token_hex(32)
        (self.directory / identity / "upper").mkdir(parents=True)
        (self.directory / identity / "work").mkdir()
        (self.directory / identity / "upper").chmod(0o755)
        self.created[identity] = (tuple(image.layers) if image else (), config, host_config)
        self.host_configs.append(host_config)
        return identity

    def run(self, container_id, output, cancelled):
        from real_engine.container.spec import ContainerSpec, Mount

        layers, config, host_config = self.created[container_id]
        directory = self.directory / container_id
        self.ran.append(config["Cmd"])
        environment = dict(variable.split("=", 1) for variable in config["Env"] or ())
        spec = ContainerSpec(
            layers,
            tuple(config["Cmd"]),
            environment=environment,
            workdir=config["WorkingDir"] or "/",
            user=config["User"] or "0",
            upper=directory / "upper",
            work=directory / "work",
            mounts=tuple(
                Mount(each["Type"], each["Target"], each.get("Source", ""), read_only=each.get("ReadOnly", False))
                for each in host_config["Mounts"]
            ),
        )
        out, err = os.pipe(), os.pipe()
        with open(os.devnull) as nothing, self.engine().start(spec, nothing.fileno(), out[1], err[1]) as container:
            os.close(out[1])
            os.close(err[1])
            names = {out[0]: "stdout", err[0]: "stderr"}
            while names:
                for descriptor in select.select(list(names), [], [], 0.05)[0]:
                    data = os.read(descriptor, 65536)
                    if data:
                        output(names[descriptor], data)
                    else:
                        os.close(descriptor)
                        del names[descriptor]
                if cancelled():
                    container.kill()
            status = container.wait(timeout_seconds=20)
        return StepResult(status, directory / "upper", layers)

    def remove(self, container_id):
        self.created.pop(container_id, None)
        shutil.rmtree(self.directory / container_id, ignore_errors=True)


@dataclass
class Built:
    """What a build said, and the id of its image; without one, why."""

    image: str = ""
    lines: list = field(default_factory=list)
    failure: Exception | None = None

    @property
    def text(self):
        """The words, as `docker build` shows them."""
        return "".join(line.get("stream", "") for line in self.lines)

    @property
    def cached(self):
        """For each step, whether it came from the cache."""
        return [" ---> Using cache\n" in step for step in self.text.split("Step ")[1:]]


@dataclass
class Workshop:
    """A builder with its store."""

    store: ImageStore
    builder: Builder
    steps: ContainerSteps
    root: Path

    def build(self, dockerfile, files=None, /, cancelled=lambda: False, **options):
        """Build; never raises for what a build itself finds wrong: that is in the result."""
        built = Built()
        output = BuildOutput(lambda line: built.lines.append(json.loads(line)), options.get("quiet", False))
        context = context_of({"Dockerfile": dockerfile, **(files or {})})
        try:
            built.image = self.builder.build(BuildOptions(**options), context, output, cancelled)
        except Exception as error:
            built.failure = error
        return built

    @staticmethod
    def directory(mode=0o755):
        """A directory for a context."""
        return directory(mode)

    @staticmethod
    def link(target):
        """A symbolic link for a context."""
        return link(target)

    def base(self):
        """The files of the image `bb` as a tar, to be added to another; with one more, that no other test has."""
        return context_of({**base_files(), "which": str(self.root)}).getvalue()

    @staticmethod
    def context(files):
        """A build context."""
        return context_of(files)

    @staticmethod
    def archive(files):
        """A gzipped tar of these files, which belong to 5:6 and have mode 0640."""
        return gzip.compress(
            context_of({name: (text, 0o640, 0) for name, text in files.items()}, (5, 6)).getvalue(), mtime=0
        )

    def image(self, name):
        return self.store.resolve(name)

    def files(self, image):
        """The files of an image's own layers: path to (mode, uid, gid, content or link)."""
        found = {}
        for diff_id in self.store.resolve(image).diff_ids:
            with self.store.layers.tar(diff_id) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    content = member.linkname
                    if member.isreg():
                        content = archive.extractfile(member).read().decode("utf-8", "replace")[:500]
                    elif member.islnk():
                        content = found[member.linkname][3]
                    found[member.name] = (member.mode, member.uid, member.gid, content)
        return found

    def left(self):
        """What builds have left behind them."""
        return os.listdir(self.builder.directory) + os.listdir(self.steps.directory)


def context_of(files, owner=(0, 0)):
    """A tar of these files: text, bytes, a `tarfile.TarInfo`, or (content, mode, mtime)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                archive.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.mode, member.mtime = 0o644, 1_700_000_000
            member.uid, member.gid = owner
            if isinstance(content, tuple):
                content, member.mode, member.mtime = content
            data = content.encode() if isinstance(content, str) else content
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    stream.seek(0)
    return stream


def directory(mode=0o755):
    member = tarfile.TarInfo()
    member.type, member.mode = tarfile.DIRTYPE, mode
    return member


def link(target):
    member = tarfile.TarInfo()
    member.type, member.linkname, member.mode = tarfile.SYMTYPE, target, 0o777
    return member


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    from real_engine.container.engine import Engine

    own = f"onggi-tests-build-{os.getpid()}"
    hierarchies = tuple(replace(each, parent=each.parent.with_name(own)) for each in cgroups.hierarchies())
    yield Engine(tmp_path_factory.mktemp("engine"), hierarchies)
    for hierarchy in hierarchies:
        cgroups.remove(hierarchy.parent)


def base_files():
    """A static busybox with a few of its names, and accounts."""
    files = {"bin": directory(), "bin/busybox": (find_busybox().read_bytes(), 0o755, 0)}
    files |= {f"bin/{name}": link("busybox") for name in APPLETS.split()}
    files |= {
        "etc": directory(),
        "etc/passwd": "root:x:0:0::/:\nuser:x:1000:100::/:\n",
        "etc/group": "staff:x:50:\nuser:x:1001:\n",
    }
    files |= {"tmp": directory(0o1777), "proc": directory(), "sys": directory(), "dev": directory()}
    return files


def base_image(store):
    """The image `bb`: a static busybox with a few of its names, and accounts."""
    layer = store.layers.apply(context_of(base_files()))
    config = {
        "architecture": Platform.host().architecture,
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "created": "2020-01-01T00:00:00Z",
        "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "ADD busybox"}],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
    }
    store.tag(store.create(config), Reference.parse("bb"))


@pytest.fixture
def workshop(request, tmp_path):
    """A builder on an empty store with the image `bb`; nothing of any build may be left at the end."""
    store = ImageStore(tmp_path / "data")
    base_image(store)
    steps = ContainerSteps(lambda: request.getfixturevalue("engine"), tmp_path / "steps")
    steps.directory.mkdir()
    shop = Workshop(store, Builder(store, steps, tmp_path / "builds", engine_version="test"), steps, tmp_path)
    yield shop
    assert [] == [name for name in shop.left() if name not in steps.created]
