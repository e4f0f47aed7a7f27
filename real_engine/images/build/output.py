"""What a build tells its client: the classic builder's lines, as JSON objects each on a line of its own."""

import codecs
import json
import threading
from collections.abc import Callable
from typing import Any

_RED, _PLAIN = "\x1b[91m", "\x1b[0m"
SHORT_ID = 12


def short_id(identity: str) -> str:
    """The first characters of an image's or container's id, without its `sha256:`."""
    return identity.removeprefix("sha256:")[:SHORT_ID]


class BuildOutput:
    """Lines to a client, through `send`. A `quiet` one keeps them back, and shows them only when the build fails."""

    def __init__(self, send: Callable[[bytes], None], quiet: bool = False) -> None:
        self._send = send
        self._kept: list[bytes] | None = [] if quiet else None
        self._decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")}
        self._lock = threading.Lock()

    @property
    def has_kept(self) -> bool:
        """Whether a quiet build keeps something back."""
        return bool(self._kept)

    def print(self, text: str) -> None:
        """Text of the builder's own, as it stands."""
        self._put({"stream": text})

    def warn(self, text: str) -> None:
        """Text that the client shows in red."""
        self._put({"stream": f"{_RED}{text}{_PLAIN}"})

    def write(self, stream: str, data: bytes) -> None:
        """What a step has written to its standard output or (in red) error; a character may come in two parts."""
        text = self._decoders[stream].decode(data)
        if text:
            self.print(text) if stream == "stdout" else self.warn(text)

    def flush(self) -> None:
        """Forget half a character at the end of a step."""
        for stream, decoder in self._decoders.items():
            rest = decoder.decode(b"", final=True)
            decoder.reset()
            if rest:
                self.print(rest) if stream == "stdout" else self.warn(rest)

    def image(self, image_id: str) -> None:
        """The id of a stage's image, for programs."""
        self._put({"aux": {"ID": image_id}})

    def relay(self, line: bytes) -> None:
        """A progress line of a pull."""
        self._put(line)

    def result(self, text: str) -> None:
        """What a quiet build shows too."""
        with self._lock:
            self._send(_line({"stream": text}))

    def error(self, message: str, code: int = 0) -> None:
        """The end of a build that failed; what a quiet one kept back comes before."""
        detail: dict[str, Any] = {"code": code} if code else {}
        with self._lock:
            for line in self._kept or ():
                self._send(line)
            self._send(_line({"errorDetail": {**detail, "message": message}, "error": message}))

    def _put(self, value: dict[str, Any] | bytes) -> None:
        line = value if isinstance(value, bytes) else _line(value)
        with self._lock:
            if self._kept is None:
                self._send(line)
            else:
                self._kept.append(line)


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace") + b"\r\n"
