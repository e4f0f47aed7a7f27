"""A blob as a stream that goes on where a cut connection left it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from real_engine.errors import EngineError
from real_engine.registry.errors import RegistryError
from real_engine.registry.replies import UnexpectedStatus
from real_engine.registry.retries import ATTEMPTS, may_pass, pause_before
from real_engine.registry.transport import Reply, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from real_engine.registry.client import RegistryClient
    from real_engine.registry.manifests import Descriptor

_FIRST_PAUSE_SECONDS = 0.25
_BLOCK_BYTES = 256 << 10


class Download:
    """The bytes of a blob from `offset` on. They are not verified: whoever has seen the first ones too does that.

    A connection that breaks is made again, and the rest is asked for by Range; a registry that knows no ranges sends
    all again, and what was there already is passed over.
    """

    def __init__(
        self,
        client: RegistryClient,
        repository: str,
        descriptor: Descriptor,
        offset: int = 0,
        on_retry: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._client = client
        self._repository = repository
        self._descriptor = descriptor
        self._on_retry = on_retry
        self._reply: Reply | None = None
        self._failures = 0
        self.offset = offset
        """Bytes of the blob that have been read, those before the beginning included."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` as far as one read does; 0 at the end.

        Raises:
            EngineError: the blob isn't there or not as long as it should be, or the registry stays away.
            Cancelled: who asked for it has gone.
        """
        while True:
            if self.offset >= self._descriptor.size:
                self._check_end()
                return 0
            try:
                if self._reply is None:
                    self._reply = self._open()
                count = self._reply.readinto(buffer[: self._descriptor.size - self.offset])
                if count == 0:
                    raise ConnectionResetError("unexpected EOF")
            except (OSError, Unreachable, UnexpectedStatus, RegistryError) as error:
                self._recover(error)
                continue
            self.offset += count
            self._failures = 0
            return count

    def close(self) -> None:
        """Give the connection back, or up."""
        if self._reply is not None:
            self._reply.close()
            self._reply = None

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self) -> Reply:
        reply = self._client.open_blob(self._repository, str(self._descriptor.digest), self.offset)
        try:
            begins = self.offset if reply.status == 206 else 0
            if reply.status == 206 and not reply.header("Content-Range").startswith(f"bytes {self.offset}-"):
                raise EngineError(f"the registry gave another range of {self._descriptor.digest} than was asked for")
            if reply.length is not None and begins + reply.length != self._descriptor.size:
                raise EngineError(
                    f"blob {self._descriptor.digest} has {begins + reply.length} bytes, and its manifest says "
                    f"{self._descriptor.size}"
                )
            waste = memoryview(bytearray(_BLOCK_BYTES)) if begins < self.offset else memoryview(b"")
            while begins < self.offset:
                count = reply.readinto(waste[: self.offset - begins])
                if count == 0:
                    raise ConnectionResetError("unexpected EOF")
                begins += count
        except BaseException:
            reply.close()
            raise
        return reply

    def _check_end(self) -> None:
        """See that nothing comes after the last byte."""
        reply, self._reply = self._reply, None
        if reply is None:
            return
        with reply:
            more = reply.goes_on()
        if more:
            raise EngineError(
                f"blob {self._descriptor.digest} is longer than the {self._descriptor.size} bytes it should be"
            )

    def _recover(self, error: Exception) -> None:
        """Wait for another attempt, or give up.

        Raises:
            EngineError: it is of no use.
        """
        self.close()
        transport = self._client.transport
        if transport.aborted:
            transport.pause(0)
        self._failures += 1
        if self._failures >= ATTEMPTS or not may_pass(error):
            if isinstance(error, EngineError):
                raise error
            raise EngineError(f"blob {self._descriptor.digest}: {error}") from error
        seconds = pause_before(error, _FIRST_PAUSE_SECONDS * 2**self._failures)
        self._on_retry(seconds)
        transport.pause(seconds)
