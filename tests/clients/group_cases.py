"""Consumer groups with real clients: progress is kept by commits, members share partitions, a killed member's move on. Each case
is one function (c: Client) → None, as in cases.py.
"""
import time

from drivers import Driver, Skipped
from ledger import sample

PROTOCOLS = ["classic", "consumer"]
PARTITIONS = 4
TAKE_MS = 30_000


def supports(c, protocol):
    """kcat is one process per command: no member that stays."""
    if c.name == "kcat":
        raise Skipped("kcat is one process per command")
    if protocol == "consumer" and c.name not in ("java", "confluent-kafka", "franz-go"):
        raise Skipped(f"{c.name} has the classic protocol only")


class Group:
    """One group of one client: its topic, and which records its members were given."""

    def __init__(self, c, what, protocol):
        supports(c, protocol)
        self.c, self.protocol = c, protocol
        self.topic = c.topic(f"group-{what}-{protocol}")
        self.group = self.topic

    def send(self, count):
        self.c.send(self.topic, sample(count, PARTITIONS, self.c.caps, f"{self.topic}-{time.monotonic_ns()}"))

    def ends(self):
        return {p: self.c.ledger.length(self.topic, p) for p in range(PARTITIONS)}

    def join(self, driver, member):
        driver.call("join", member=member, group=self.group, topics=[self.topic], protocol=self.protocol, session_ms=6000)

    def read_to_end(self, driver, member, start):
        """Exactly the records from `start` on, each partition in order."""
        want = {(p, o) for p, end in self.ends().items() for o in range(start.get(p, 0), end)}
        records = driver.call("take", member=member, count=len(want), timeout_ms=TAKE_MS)["records"]
        got = [(p, o) for _, p, o in records]
        assert len(got) == len(want) and set(got) == want, f"missing {sorted(want - set(got))}, not asked {sorted(set(got) - want)}"
        for p in range(PARTITIONS):
            mine = [o for q, o in got if q == p]
            assert mine == sorted(mine), f"partition {p} out of order: {mine}"

    def commit(self, driver, member):
        """Everything read is committed, and the broker says so too."""
        offsets = {p: o for _, p, o in driver.call("commit", member=member)["offsets"]}
        want = {p: end for p, end in self.ends().items() if end}
        assert offsets == want, f"committed {offsets}, expected {want}"


def commit_and_resume(protocol):
    """A second member of the group, after the first has left, goes on exactly where that one has committed."""
    def case(c):
        g = Group(c, "resume", protocol)
        c.create(g.topic, PARTITIONS)
        g.send(40)
        g.join(c.driver, "one")
        g.read_to_end(c.driver, "one", {})
        g.commit(c.driver, "one")
        c.driver.call("leave", member="one")
        before = g.ends()
        g.send(12)
        g.join(c.driver, "two")
        g.read_to_end(c.driver, "two", before)
        g.commit(c.driver, "two")
        c.driver.call("leave", member="two")
    case.__name__ = f"group_commit_and_resume_{protocol}"
    return case


def member_killed(protocol):
    """Two members share the partitions; one is killed (its process ends without a word): the other gets everything, and of what
    was committed nothing again."""
    def case(c):
        g = Group(c, "killed", protocol)
        c.create(g.topic, PARTITIONS)
        other = Driver(c.name, c.broker.bootstrap, c.driver.log_dir)
        try:
            g.join(c.driver, "stays")
            g.join(other, "goes")
            members = [(c.driver, "stays"), (other, "goes")]
            shares = share(members)
            assert not (shares[0] & shares[1]), f"both members have {shares[0] & shares[1]}"
            g.send(40)
            want, seen, deadline = {(p, o) for p, end in g.ends().items() for o in range(end)}, [], time.monotonic() + 30
            while not set(seen) >= want and time.monotonic() < deadline:
                seen += [(p, o) for answer in take(members) for _, p, o in answer["records"]]
            assert sorted(seen) == sorted(want), f"missing {sorted(want - set(seen))}, {len(seen)} of {len(want)} records"
            c.driver.call("commit", member="stays")
            other.call("commit", member="goes")
            before = g.ends()
            g.send(40)
        finally:
            other.close()  # kill -9
        want = {(p, o) for p, end in g.ends().items() for o in range(before[p], end)}
        got, deadline = [], time.monotonic() + 70
        while not set(got) >= want and time.monotonic() < deadline:
            got += [(p, o) for _, p, o in c.driver.call("take", member="stays", count=0, timeout_ms=500)["records"]]
        assert set(got) >= want, f"missing after the kill {sorted(want - set(got))}"
        assert set(got) == want, f"given again though committed: {sorted(set(got) - want)}"
        c.driver.call("leave", member="stays")
    case.__name__ = f"group_member_killed_{protocol}"
    return case


def take(members):
    return [driver.call("take", member=member, count=0, timeout_ms=500) for driver, member in members]


def share(members):
    """The members' shares once each has partitions and together they have all."""
    deadline, before = time.monotonic() + 60, None
    while time.monotonic() < deadline:
        shares = [{p for _, p in answer["assigned"]} for answer in take(members)]
        if shares == before and all(shares) and set.union(*shares) == set(range(PARTITIONS)):
            return shares
        before = shares
    raise AssertionError(f"no stable sharing: {shares}")


def again(c):
    """After a restart of the broker: committed offsets are there, a new member goes on from them."""
    for protocol in PROTOCOLS:
        try:
            g = Group(c, "resume", protocol)
        except Skipped:
            continue
        before = g.ends()
        if not any(before.values()):
            continue
        g.send(8)
        g.join(c.driver, "again")
        g.read_to_end(c.driver, "again", before)
        g.commit(c.driver, "again")
        c.driver.call("leave", member="again")


CASES = [make(protocol) for make in (commit_and_resume, member_killed) for protocol in PROTOCOLS]
