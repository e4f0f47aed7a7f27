"""Tells a client what its own requests make the daemon do, while it is done.

A client names a token when it begins to listen, and puts the same token into a header of its requests. While such a
request is answered, a context variable leads to the listener; threads that go on with the work get a copy of the
context. Where nobody listens that variable is empty, and each place that could tell something looks at it once.

Steps are made of steps: a network is attached by messages, a start by kernel calls. Each is told when it ends, so its
parts come before it. What lies in whose time is counted here, where threads are known: a step with `parts` has
`own_seconds`, in which none of them was at work. So own times can be added up, and whole times cannot.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from real_engine.errors import EngineError
from real_engine.explain.reasons import WHY

if TYPE_CHECKING:
    from real_engine.container.steps import Step
    from real_engine.http.messages import Request, Response

HEADER = "X-Onggi-Explain"
"""The header by which a client marks the requests that it wants to be told of."""

MOST_RECORDS = 8192
"""As many wait for a listener that does not read; of more it is only told how many were lost."""
MOST_LISTENERS = 64
_MOST_FOLLOWED = 1024
_MOST_TEXT = 2000  # characters of what a step says that it does

Json = dict[str, Any]
Observer = Callable[["Step"], None]
_Part = tuple[float, float, int, int]  # begin, end, thread, how many steps it is with its own parts

_current: contextvars.ContextVar[Listener | None] = contextvars.ContextVar("explained", default=None)
_within: contextvars.ContextVar[Whole | None] = contextvars.ContextVar("within", default=None)
_followed: dict[str, Listener] = {}  # container id to who wants to know how it ends


class Whole:
    """What steps are parts of: a request, or a step that is being done. Thread-safe.

    `depth` is how many steps are around its parts; `beginning` is told before the first of them, if there is one.
    """

    def __init__(
        self, listener: Listener, depth: int, outer: Whole | None = None, beginning: Json | None = None
    ) -> None:
        self.listener, self.depth = listener, depth
        self._outer, self._beginning = outer, beginning
        self._lock = threading.Lock()
        self._parts: list[_Part] = []

    def tell(self, record: Json, *, claims: bool = True) -> None:
        """Tell of a part that has been done. If it `claims`, what this thread did earlier in its time is part of it."""
        begin, thread = record["begin"], threading.get_ident()
        end = begin + record["seconds"]
        with self._lock:
            if claims:
                inside: list[_Part] = []
                beside: list[_Part] = []
                for each in self._parts:
                    lies_in_it = begin <= each[0] and each[1] <= end and each[2] == thread
                    (inside if lies_in_it else beside).append(each)
                if inside:
                    self._parts = beside
                    record["parts"] = record.get("parts", 0) + sum(each[3] for each in inside)
                    own = record["own_seconds" if "own_seconds" in record else "seconds"] - covered(inside)
                    record["own_seconds"] = round(max(0.0, own), 9)
            self._parts.append((begin, end, thread, 1 + record.get("parts", 0)))
        self.announce()
        if self.depth:
            record["depth"] = self.depth
        self.listener.tell(record)

    def announce(self) -> None:
        """Tell that it has begun, once."""
        with self._lock:
            beginning, self._beginning = self._beginning, None
        if beginning is not None:
            if self._outer is not None:
                self._outer.announce()
            self.listener.tell(beginning)

    def summed(self, seconds: float) -> Json:
        """How many parts it has, and how much of `seconds` was in none of them; nothing if it has none."""
        with self._lock:
            if not self._parts:
                return {}
            own = round(max(0.0, seconds - covered(self._parts)), 9)
            return {"parts": sum(each[3] for each in self._parts), "own_seconds": own}


def covered(parts: Iterable[_Part]) -> float:
    """Seconds in which at least one of the parts was at work; some may have been at the same time."""
    seconds, until = 0.0, float("-inf")
    for begin, end, *_ in sorted(parts):
        seconds += max(0.0, end - max(begin, until))
        until = max(until, end)
    return seconds


class Listener:
    """Who wants to be told; its descriptor can be read when records wait. Thread-safe."""

    def __init__(self, token: str) -> None:
        self.token = token
        self._waiting: deque[Json] = deque()
        self._lock = threading.Lock()
        self._lost = 0
        self._signal = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """The descriptor that can be read when records wait."""
        return self._signal

    def tell(self, record: Json) -> None:
        """Add a record; one too many is counted, and not kept."""
        with self._lock:
            if self._signal < 0:
                return
            if len(self._waiting) >= MOST_RECORDS:
                self._lost += 1
                return
            self._waiting.append(record)
            os.eventfd_write(self._signal, 1)

    def take(self) -> list[Json]:
        """All that wait; doesn't wait itself."""
        with self._lock:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._signal)
            records = list(self._waiting)
            self._waiting.clear()
            if self._lost:
                records.append({"kind": "lost", "records": self._lost})
                self._lost = 0
        return records

    def close(self) -> None:
        """Listen no more."""
        for container_id in [each for each, listener in list(_followed.items()) if listener is self]:
            _followed.pop(container_id, None)
        with self._lock:
            if self._signal >= 0:
                os.close(self._signal)
                self._signal = -1


class _Measured(Protocol):
    """What of a step of any room is told; `container.steps.Step` has it."""

    @property
    def phase(self) -> str: ...
    @property
    def call(self) -> str: ...
    @property
    def why(self) -> str: ...
    @property
    def operation(self) -> str: ...
    @property
    def begin_seconds(self) -> float: ...
    @property
    def end_seconds(self) -> float: ...
    @property
    def cpu_seconds(self) -> float: ...


def current() -> Listener | None:
    """Who is to be told of what this thread does now."""
    return _current.get()


def observer() -> Observer | None:
    """The same, in the form that the rooms whose steps are objects take."""
    listener = _current.get()
    return None if listener is None else lambda step: tell_step(listener, step)


def whole(listener: Listener) -> Whole:
    """What this thread's steps are parts of."""
    within = _within.get()
    return within if within is not None and within.listener is listener else Whole(listener, 0)


@contextlib.contextmanager
def inside(within: Whole) -> Iterator[None]:
    """In this context, what this thread does is part of `within`."""
    reset = _within.set(within)
    try:
        yield
    finally:
        _within.reset(reset)


def tell_step(listener: Listener, step: _Measured) -> None:
    """Tell of a step that was measured elsewhere."""
    whole(listener).tell(
        step_record(
            step.phase, step.operation, step.call, step.why, step.begin_seconds, step.end_seconds, step.cpu_seconds
        )
    )


def tell_plain(listener: Listener, steps: Iterable[Mapping[str, Any]]) -> None:
    """Tell of the steps of a start, as the supervisor gives them. One that was not done has no times."""
    within = whole(listener)
    for step in steps:
        if step["end_seconds"]:
            within.tell(
                step_record(
                    step["phase"],
                    step.get("operation", ""),
                    step["call"],
                    step["why"],
                    step["begin_seconds"],
                    step["end_seconds"],
                    step["cpu_seconds"],
                )
            )


def step_record(
    phase: str, operation: str, call: str, why: str, begin: float, end: float, cpu: float | None, **more: Any
) -> Json:
    """A step as it is told; times are of `time.perf_counter`, which all processes of a machine share, in seconds."""
    cut = call if len(call) <= _MOST_TEXT else call[:_MOST_TEXT] + "…"
    return {
        "kind": "step",
        "phase": phase,
        "operation": operation,
        "call": cut,
        "why": why,
        "begin": begin,
        "seconds": round(max(0.0, end - begin), 9),
        "cpu_seconds": None if cpu is None else round(cpu, 9),
        **more,
    }


class Span:
    """A context that tells at its end what was done in it. Entering and leaving cost nothing where nobody listens.

    `operation` names a reason of `reasons.WHY`. What is known only later is put into `call` and `more` meanwhile.
    """

    __slots__ = ("_begin", "_cpu", "_inner", "_listener", "_outer", "_reset", "call", "more", "operation", "phase")

    def __init__(self, phase: str, operation: str, call: str = "") -> None:
        self.phase, self.operation, self.call = phase, operation, call
        self.more: Json = {}
        self._listener = _current.get()
        self._begin = self._cpu = 0.0

    @property
    def told(self) -> bool:
        """Whether somebody listens: only then it is worth while to find words."""
        return self._listener is not None

    def __enter__(self) -> Span:
        if self._listener is not None:
            self._outer = whole(self._listener)
            self._begin, self._cpu = time.perf_counter(), time.thread_time()
            beginning = {
                "kind": "begun",
                "phase": self.phase,
                "operation": self.operation,
                "call": self.call,
                "why": WHY[self.operation],
                "begin": self._begin,
                "depth": self._outer.depth,
            }
            self._inner = Whole(self._listener, self._outer.depth + 1, self._outer, beginning)
            self._reset = _within.set(self._inner)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._listener is None:
            return
        cpu, end = time.thread_time() - self._cpu, time.perf_counter()
        _within.reset(self._reset)
        if error is not None:
            self.more["error"] = str(error) or type(error).__name__
        more = self.more | self._inner.summed(end - self._begin)
        self._outer.tell(
            step_record(self.phase, self.operation, self.call, WHY[self.operation], self._begin, end, cpu, **more)
        )


def span(phase: str, operation: str, call: str = "") -> Span:
    """A `Span`; for what is done seldom enough that its words may be made in any case."""
    return Span(phase, operation, call)


def tell(phase: str, operation: str, call: str, begin: float, end: float, **more: Any) -> None:
    """Tell of something that this thread has measured itself."""
    listener = _current.get()
    if listener is not None:
        whole(listener).tell(step_record(phase, operation, call, WHY[operation], begin, end, None, **more))


def carried(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, to be called once by another thread, which then tells the same listener as this one."""
    if _current.get() is None:
        return function
    context = contextvars.copy_context()
    return lambda *arguments, **named: context.run(function, *arguments, **named)


def follow(container_id: str) -> None:
    """Let whoever listens to this thread be told of the container's end too."""
    listener = _current.get()
    if listener is not None and len(_followed) < _MOST_FOLLOWED:
        _followed[container_id] = listener


@contextlib.contextmanager
def following(container_id: str) -> Iterator[None]:
    """In this context, whoever followed the container is told."""
    listener = _followed.pop(container_id, None) if _followed else None
    if listener is None:
        yield
        return
    reset = _current.set(listener)
    try:
        yield
    finally:
        _current.reset(reset)


class Explanations:
    """Who listens to this daemon. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[str, Listener] = {}
        self._numbers = 0

    def listen(self, token: str) -> Listener | None:
        """Begin to listen for requests with this token; None if somebody does already, or too many do."""
        with self._lock:
            if token in self._listeners or len(self._listeners) >= MOST_LISTENERS:
                return None
            listener = self._listeners[token] = Listener(token)
            return listener

    def leave(self, listener: Listener) -> None:
        """Listen no more."""
        with self._lock:
            self._listeners.pop(listener.token, None)
        listener.close()

    def finish(self, token: str) -> bool:
        """Tell the listener that nothing more comes; whether there is one."""
        listener = self._listeners.get(token)
        if listener is not None:
            listener.tell({"kind": "end"})
        return listener is not None

    def answer(
        self,
        request: Request,
        token: str,
        handler: Callable[[Request], Response | None],
        status_of: Callable[[EngineError], int],
    ) -> Response | None:
        """Let `handler` answer, and tell who listens for the token what is done."""
        listener = self._listeners.get(token)
        if listener is None:
            return handler(request)
        with self._lock:
            self._numbers += 1
            number = self._numbers
        begin = time.perf_counter()
        target = f"{request.path}?{request.query_text}" if request.query_text else request.path
        listener.tell({"kind": "asked", "number": number, "method": request.method, "target": target, "begin": begin})
        context = contextvars.copy_context()
        context.run(_current.set, listener)
        steps = Whole(listener, 0)
        context.run(_within.set, steps)

        def answered(status: int, **more: Any) -> None:
            record = {"kind": "answered", "number": number, "method": request.method, "target": target}
            now = time.perf_counter()
            times = {"status": status, "begin": now, "seconds": now - begin} | steps.summed(now - begin)
            listener.tell(record | times | more)

        try:
            response = context.run(handler, request)
        except EngineError as error:
            answered(status_of(error), error=str(error))
            raise
        if response is None:
            answered(101 if request.hijacked is not None else 200)
        elif hasattr(response.body, "__next__") and not hasattr(response.body, "read"):
            response.body = _Body(response.body, context, lambda: answered(response.status))
        else:
            answered(response.status)
        return response


class _Body:
    """An answer's body that is made while it is sent: in the context of its request."""

    def __init__(self, items: Any, context: contextvars.Context, ended: Callable[[], None]) -> None:
        self._items = items
        self._context = context
        self._ended: Callable[[], None] | None = ended

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        try:
            item: bytes = self._context.run(next, self._items)
        except BaseException:
            self._end()
            raise
        return item

    def close(self) -> None:
        """The client has gone, or has all of it."""
        close = getattr(self._items, "close", None)
        if close is not None:
            self._context.run(close)
        self._end()

    def _end(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()


def line_of(record: Mapping[str, Any]) -> bytes:
    """A record as a line of JSON."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
