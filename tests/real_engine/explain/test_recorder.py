"""Who listens is told of his own requests alone, from every thread that works for them; who doesn't, pays nothing."""

import threading
import time

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


def answered(explanations, handler):
    explanations.answer(FakeRequest(), TOKEN, handler, lambda error: 500)


def test_a_step_in_a_step_is_its_part_and_times_are_counted_once(told):
    explanations, listener = told

    def handler(request):
        with span("build", "BuildStep", "outer"):
            with span("cache", "CacheMiss", "inner"):
                time.sleep(0.01)
            with span("store", "CommitLayer", "other"):
                pass
        return Response(200)

    answered(explanations, handler)
    records = listener.take()
    assert ["asked", "begun", "step", "step", "step", "answered"] == [record["kind"] for record in records]
    begun, inner, other, outer, answer = records[1:]
    assert ("outer", 0, begun["begin"]) == (begun["call"], begun["depth"], outer["begin"])
    assert (1, 1, 2) == (inner["depth"], other["depth"], outer["parts"])
    assert "own_seconds" not in inner
    assert outer["seconds"] == pytest.approx(outer["own_seconds"] + inner["seconds"] + other["seconds"], abs=1e-6)
    assert outer["own_seconds"] < 0.01
    assert 3 == answer["parts"]
    assert answer["seconds"] == pytest.approx(answer["own_seconds"] + outer["seconds"], abs=1e-6)


def test_a_step_without_parts_has_no_beginning_of_its_own(told):
    explanations, listener = told

    def handler(request):
        with span("store", "TagImage", "alone"):
            return Response(200)

    answered(explanations, handler)
    assert ["asked", "step", "answered"] == [record["kind"] for record in listener.take()]


def test_what_is_told_afterwards_holds_what_was_done_in_its_time(told):
    explanations, listener = told

    def handler(request):
        begin = time.perf_counter()
        recorder.tell_plain(
            current(),
            [plain_step(begin + 1, begin + 2), plain_step(begin + 2, begin + 4), plain_step(0.0, 0.0)],
        )
        recorder.tell("start", "StartInSupervisor", "whole", begin, begin + 5)
        recorder.tell("end", "ProgramEnded", "later", begin + 6, begin + 7)
        return Response(200)

    answered(explanations, handler)
    whole, later = [record for record in listener.take() if record["kind"] == "step"][-2:]
    assert (2, 5.0, 2.0) == (whole["parts"], whole["seconds"], pytest.approx(whole["own_seconds"]))
    assert "parts" not in later


def plain_step(begin, end):
    times = {"begin_seconds": begin, "end_seconds": end, "cpu_seconds": 0.0}
    return {"phase": "mounts", "call": "mount()", "why": "so", "operation": "Mount", **times}


def test_what_another_thread_does_meanwhile_is_no_part(told):
    explanations, listener = told

    def handler(request):
        begin = time.perf_counter()
        work = carried(lambda: recorder.tell("store", "TagImage", "beside", begin + 1, begin + 2))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        recorder.tell("start", "StartInSupervisor", "whole", begin, begin + 5)
        return Response(200)

    answered(explanations, handler)
    beside, whole = [record for record in listener.take() if record["kind"] == "step"]
    assert ("beside", "whole") == (beside["call"], whole["call"])
    assert "parts" not in whole


def test_parts_that_ran_side_by_side_are_covered_once():
    assert 5.0 == recorder.covered([(0.0, 3.0, 1, 1), (1.0, 2.0, 2, 1), (2.0, 4.0, 3, 1), (6.0, 7.0, 1, 1)])
    assert 0.0 == recorder.covered([])


def test_the_parts_of_a_failed_step_are_not_those_of_the_next(told):
    explanations, listener = told

    def handler(request):
        with pytest.raises(ValueError, match="broken"), span("build", "BuildStep", "failed"):
            raise ValueError("broken")
        with span("build", "BuildStep", "next"):
            pass
        return Response(200)

    answered(explanations, handler)
    failed, after = [record for record in listener.take() if record["kind"] == "step"]
    assert ("broken", 0, 0) == (failed["error"], failed.get("depth", 0), after.get("depth", 0))
