"""Who listens is told of his own requests alone, from every thread that works for them; who doesn't, pays nothing."""

import threading

import pytest

from real_engine.explain import recorder
from real_engine.explain.recorder import Explanations, carried, current, follow, following, span
from real_engine.http.messages import Response

TOKEN = "0123456789abcdef"


class FakeRequest:
    def __init__(self, path="/x"):
        self.method, self.path, self.query_text, self.hijacked = "GET", path, "", None


@pytest.fixture
def told():
    explanations = Explanations()
    listener = explanations.listen(TOKEN)
    yield explanations, listener
    explanations.leave(listener)


def steps(listener):
    return [record["call"] for record in listener.take() if record["kind"] == "step"]


def test_only_requests_with_the_token_are_told(told):
    explanations, listener = told

    def handler(request):
        with span("store", "TagImage", request.path):
            return Response(200)

    explanations.answer(FakeRequest("/mine"), TOKEN, handler, lambda error: 500)
    explanations.answer(FakeRequest("/other"), "another", handler, lambda error: 500)
    assert ["/mine"] == steps(listener)
    assert current() is None


def test_threads_and_bodies_that_go_on_are_told_too(told):
    explanations, listener = told

    def work(call):
        with span("store", "TagImage", call):
            pass

    def handler(request):
        thread = threading.Thread(target=carried(work), args=("thread",))
        thread.start()
        thread.join()

        def body():
            work("body")
            yield b"x"

        return Response(200, body())

    response = explanations.answer(FakeRequest(), TOKEN, handler, lambda error: 500)
    assert [b"x"] == list(response.body)
    records = listener.take()
    assert ["asked", "step", "step", "answered"] == [record["kind"] for record in records]
    assert current() is None


def test_a_failure_is_told_with_its_status(told):
    explanations, listener = told
    from real_engine.errors import NotFound

    def handler(request):
        raise NotFound("No such image: x")

    with pytest.raises(NotFound):
        explanations.answer(FakeRequest(), TOKEN, handler, lambda error: 404)
    assert (404, "No such image: x") == (lambda record: (record["status"], record["error"]))(listener.take()[-1])


def test_the_end_of_a_container_is_told_to_who_started_it(told):
    explanations, listener = told
    explanations.answer(FakeRequest(), TOKEN, lambda request: follow("c1"), lambda error: 500)
    listener.take()
    with following("c1"), span("end", "ProgramEnded", "of c1"):
        pass
    with following("c1"), span("end", "ProgramEnded", "again"):
        pass
    assert ["of c1"] == steps(listener)


def test_a_slow_reader_loses_and_is_told_how_many(told, monkeypatch):
    _, listener = told
    monkeypatch.setattr(recorder, "MOST_RECORDS", 3)
    for number in range(5):
        listener.tell({"kind": "step", "number": number})
    assert [0, 1, 2] == [record["number"] for record in listener.take()[:3]]
    for number in range(5):
        listener.tell({"kind": "step", "number": number})
    assert {"kind": "lost", "records": 2} == listener.take()[-1]


def test_a_token_is_one_listeners(told):
    explanations, _ = told
    assert explanations.listen(TOKEN) is None
