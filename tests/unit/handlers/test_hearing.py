"""A watch that died in silence is noticed by what a list shows and the watch does not."""

from __future__ import annotations

from nightorders.handlers.events import Hearing, Subjects

A, B = ("shop", "a"), ("shop", "b")


def test_what_was_delivered_is_heard() -> None:
    hearing = Hearing()
    hearing.delivered(A, "7")
    hearing.compare({A: "7"})
    hearing.compare({A: "7"})
    assert not hearing.deaf


def test_a_list_may_be_ahead_of_the_watch_once() -> None:
    hearing = Hearing()
    hearing.compare({A: "7"})
    assert not hearing.deaf
    hearing.delivered(A, "7")
    hearing.compare({A: "7"})
    assert not hearing.deaf


def test_the_same_version_missing_twice_is_deafness_and_hearing_it_cures() -> None:
    hearing = Hearing()
    hearing.delivered(A, "6")
    hearing.compare({A: "7", B: "1"})
    hearing.compare({A: "7", B: "2"})
    assert hearing.deaf
    hearing.delivered(A, "7")
    hearing.compare({A: "7"})
    assert not hearing.deaf


def test_a_busy_object_that_is_ahead_in_each_list_is_not_deafness() -> None:
    hearing = Hearing()
    for version in "123456":
        hearing.compare({A: version})
        assert not hearing.deaf
        hearing.delivered(A, version)


def test_what_is_gone_is_not_missed() -> None:
    hearing = Hearing()
    hearing.delivered(A, "7")
    hearing.gone(A)
    hearing.compare({})
    hearing.compare({})
    assert not hearing.deaf


def subject(kind: str = "Deployment", name: str = "checkout", *, closed: bool = False) -> dict:
    conditions = [{"type": "Closed", "status": "True"}] if closed else []
    return {"spec": {"target": {"kind": kind, "name": name}}, "status": {"conditions": conditions}}


def test_open_incidents_are_woken_by_their_subject() -> None:
    subjects = Subjects()
    subjects.note(A, subject(), gone=False)
    subjects.note(B, subject(name="cart"), gone=False)
    assert subjects.about("shop", "Deployment/checkout") == [A]
    assert subjects.about("other", "Deployment/checkout") == []
    subjects.note(A, subject(closed=True), gone=False)
    assert subjects.about("shop", "Deployment/checkout") == []
    subjects.note(B, subject(name="cart"), gone=True)
    assert subjects.about("shop", "Deployment/cart") == []
