"""The sessions of `docker_sessions.txt`, read."""

import json
import shlex
from pathlib import Path

from docker_command_line import Step

IMAGE = "bb"

CONTEXT = {
    "Dockerfile": """FROM bb
LABEL stage=one
ENV GREETING=hello
ARG X=1
WORKDIR /work
COPY file.txt .
RUN echo $GREETING $X > out.txt && cat out.txt
EXPOSE 80
CMD ["cat", "out.txt"]
""",
    "file.txt": "from the context\n",
    ".dockerignore": "*.md\n",
    "notes.md": "ignored\n",
}


def read_sessions(path: Path) -> dict[str, list[Step]]:
    """The steps of each session, by its name."""
    sessions: dict[str, list[Step]] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("## "):
            steps = sessions.setdefault(line.removeprefix("## "), [])
        elif line and not line.startswith("#"):
            try:
                steps.append(_step(line))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path.name}:{number}: {error}") from error
    return sessions


def _step(line: str) -> Step:
    options = {}
    if line.startswith("{"):
        options, end = json.JSONDecoder().raw_decode(line)
        line = line[end:]
    times = options.pop("times", 1)
    if "given" in options:
        options["given"] = options["given"].encode() * times
    if "typed" in options:
        options["typed"] = tuple((awaited, typed) for awaited, typed in options["typed"])
    return Step(tuple(shlex.split(line)), **options)


BESIDE = {
    "env.list": "A=1\nB=two words\n# no variable\nD\n",
    "label.list": "l1=x\nl2=y z\n",
    "seccomp.json": """{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}""",
}
"""Files in the directory in which the commands are run."""

SESSIONS = read_sessions(Path(__file__).with_suffix(".txt"))
