"""A pool with nothing to do does nothing."""

import pytest
from harness.processes import context_switches
from harness.waiting import stays_true


@pytest.mark.parametrize(
    "args, worker",
    [
        (["-n", "2", "-m", "0.05", "-b", "127.0.0.1:0"], "http_worker"),
        (["-n", "2", "-m", "manual", "-t", "5", "--ack-timeout", "60"], "http_worker --ack=path"),
    ],
    ids=["timer", "manual"],
)
def test_no_wake_ups_when_idle(make_pool, args, worker):
    pool = make_pool(args, worker)
    pool.wait_ready(2)
    state = pool.state_json()
    pids = (state["guard"], state["master"])
    # The last command's connection is closed in the master's own time.
    stays_true(lambda: all(context_switches(pid) > 0 for pid in pids), 0.3)
    before = [context_switches(pid) for pid in pids]
    stays_true(lambda: [context_switches(pid) for pid in pids] == before, 5, "woken up while idle")
