"""Which failed requests were lost with a killed worker, and which are failures of ours.

A failed request is *lost with a killed worker* only if its connection broke (reset, end of file, or
half an answer; never refused, never a time-out) and

  named     a killed worker's ledger says that this very connection, by the client's address and
            port, was in its hands when it died, or
  unnamed   a thread of a killed worker died in the few instructions between the kernel's accept()
            and its note. Such a thread accounts for one connection, that nobody else has named.

Each thread of a killed worker accounts for one request at most. Everything else has *failed*: so
also a connection that was reset while it waited to be accepted, because no ledger names it."""

from dataclasses import dataclass, field

import ledger

BROKEN = ("reset", "eof", "bad_reply")
# A connection breaks at once when its worker does; so late may a busy client see it.
SEEN_WITHIN = 2.0


@dataclass
class Account:
    """The sum of several loads."""

    requests: int = 0
    ok: int = 0
    reused: int = 0
    lost: int = 0
    unnamed: int = 0  # of the lost
    failed: list = field(default_factory=list)
    longest_gap_ms: float = 0.0
    worst_latency_ms: float = 0.0
    answered_by: set = field(default_factory=set)

    def add(self, result, failures):
        """One load's result, with all its failures; those that were lost are told by `settle`."""
        assert result["requests"] == result["ok"] + result["failures"], result
        assert result["failures"] == len(failures), result
        self.requests += result["requests"]
        self.ok += result["ok"]
        self.reused += result["reused"]
        self.failed += failures
        self.longest_gap_ms = max(self.longest_gap_ms, result["longest_gap_ms"])
        self.worst_latency_ms = max(self.worst_latency_ms, result["latency_ms"]["max"])
        self.answered_by |= {int(pid) for pid in result["by_pid"]}

    def settle(self, dead, killed):
        """Moves what was lost from `failed` to `lost`. `dead`: ledgers of workers that ended out of
        order; `killed`: {pid: when, or None if only the kernel knows}, no others can lose any."""
        slots = [(worker, slot) for worker in dead if worker.pid in killed for slot in worker.slots]
        holding = {}
        for worker, slot in slots:
            if slot.state == ledger.HOLDING:
                holding.setdefault(slot.client, []).append((slot.accepted, killed[worker.pid]))
        between = [killed[w.pid] for w, slot in slots if slot.state == ledger.ACCEPTING]

        def take(candidates, failure):
            """Uses up the one of `candidates` (when accepted, when killed) that fits."""
            for candidate in candidates:
                accepted, when = candidate
                late = when is not None and not when - 0.1 <= failure["ended"] <= when + SEEN_WITHIN
                if (accepted is None or accepted <= failure["ended"]) and not late:
                    candidates.remove(candidate)
                    return True
            return False

        unnamed = [(None, when) for when in between]
        ours = []
        for failure in sorted(self.failed, key=lambda f: f["ended"]):
            if failure["kind"] not in BROKEN:
                ours.append(failure)
            elif take(holding.get(failure["local"], []), failure):
                self.lost += 1
            elif take(unnamed, failure):
                self.lost += 1
                self.unnamed += 1
            else:
                ours.append(failure)
        self.failed = ours
        return self
