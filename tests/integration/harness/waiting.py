"""Waiting for something to become true. No other file of the tests sleeps."""

import time

POLL_INTERVAL = 0.005


class DeadlineExceeded(AssertionError):
    """What was waited for did not come in time."""


def wait_until(predicate, deadline=10.0, what=None):
    """Calls `predicate` until it answers something true, and returns that.

    After `deadline` seconds: DeadlineExceeded, which says `what` (a text, or a function that makes
    one, so that it can tell how things stand at the end)."""
    end = time.monotonic() + deadline
    while True:
        answer = predicate()
        if answer:
            return answer
        if time.monotonic() >= end:
            text = what() if callable(what) else what
            raise DeadlineExceeded(f"not within {deadline} s: {text or predicate}")
        time.sleep(POLL_INTERVAL)


def stays_true(predicate, duration, what=None):
    """Asserts that `predicate` holds all the time for `duration` seconds: for things that must not
    happen, where there is nothing to wait for."""
    end = time.monotonic() + duration
    while time.monotonic() < end:
        assert predicate(), what or f"{predicate} did not stay true"
        time.sleep(POLL_INTERVAL)


def ticks(interval, duration):
    """Counts from 0, once every `interval` seconds for `duration` seconds: for faults that are
    induced at a pace. What is late is not made up for."""
    begin = time.monotonic()
    count, due = 0, begin
    while due < begin + duration:
        now = time.monotonic()
        if now < due:
            time.sleep(due - now)
        yield count
        count += 1
        due = max(due + interval, time.monotonic())
