"""What every client must be able to do against one broker. Each case is one function (c: Client) → None; it raises when the
broker or the client is wrong, or Skipped with a reason. Partitions are assigned by hand here; groups are in group_cases.py.
"""
import base64
import time

import group_cases
from drivers import Refused, Skipped
from ledger import big, now_ms, sample
from protocol import apis, batch
from protocol.client import LATEST, produce

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
UNKNOWN_TOPIC, MESSAGE_TOO_LARGE = 3, 10
READ_TIMEOUT_MS = 20_000


class Client:
    """One client during one run: its driver, the shared ledger, its own topics."""

    def __init__(self, name, driver, cluster, ledger, broker):
        self.name, self.driver, self.cluster, self.ledger, self.broker = name, driver, cluster, ledger, broker
        self.caps = driver.caps
        self.strict = broker.name == "pelton"

    def topic(self, what):
        return f"{self.name}.{what}".replace("_", "-")

    def create(self, topic, partitions):
        """Pelton's CreateTopics returns when the leaders serve; Kafka's may return a moment earlier."""
        self.cluster.create(topic, partitions)
        deadline = time.monotonic() + 10
        while not self.strict and time.monotonic() < deadline:
            if all(self.cluster.offset(topic, p, LATEST)[0] == 0 for p in range(partitions)):
                return
            time.sleep(0.05)

    def eventually(self, op, **values):
        """Kafka answers CreateTopics a little before every part of it knows the topic; Pelton must know it at once."""
        deadline = time.monotonic() + (0 if self.strict else 15)
        while True:
            try:
                return self.driver.call(op, **values)
            except Refused as e:
                if e.code != UNKNOWN_TOPIC or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def send(self, topic, records, **settings):
        """Produce, and write what was acknowledged into the ledger."""
        before = {p: self.ledger.length(topic, p) for p in {r["p"] for r in records}}
        offsets = self.driver.call("produce", topic=topic, records=records, **settings)["offsets"]
        if all(o is not None and o >= 0 for o in offsets):
            self.ledger.add(topic, records, offsets)
        else:  # acks=0, or a client that does not tell: the end of the log must come to what was sent
            self.ledger.add_in_order(topic, records)
            for p in before:
                self.wait_end(topic, p, self.ledger.length(topic, p))

    def wait_end(self, topic, p, wanted, wait_s=10):
        deadline = time.monotonic() + wait_s
        while (end := self.cluster.offset(topic, p, LATEST)[2]) != wanted:
            if time.monotonic() > deadline or end > wanted:
                raise AssertionError(f"{topic}-{p} ends at {end}, expected {wanted}")
            time.sleep(0.05)

    def read(self, topic, p, at="earliest", start=0, value=None):
        """Read to the end and compare with the ledger."""
        count = self.ledger.length(topic, p) - start
        more = {} if value is None else {"value": value}
        got = self.driver.call("consume", topic=topic, p=p, at=at, count=count, timeout_ms=READ_TIMEOUT_MS, **more)
        self.ledger.check(topic, p, got["records"], start)

    def read_all(self, topics):
        for topic in topics:
            for p in self.ledger.partitions(topic):
                self.read(topic, p)

    def batches(self, topic, p, first):
        return [b for b in self.cluster.fetch_batches(topic, p) if b.base_offset >= first]


def check_read(c, topic):
    """Read own data back; a client that cannot consume leaves that to the others."""
    try:
        c.read_all([topic])
    except Skipped:
        pass


def auto_create(c):
    topic = c.topic("auto")
    c.send(topic, sample(3, 1, c.caps, "auto"))
    check_read(c, topic)


def create_and_describe(c):
    topic = c.topic("configs")
    c.eventually("create", topic=topic, partitions=3, configs={"retention.ms": "123456789", "max.message.bytes": "2000000"})
    got = c.eventually("configs", topic=topic)["configs"]
    wrong = {k: got.get(k) for k, v in {"retention.ms": "123456789", "max.message.bytes": "2000000", "cleanup.policy": "delete"}.items()
             if got.get(k) != v}
    assert not wrong, f"configs {wrong}"
    assert c.eventually("metadata", topic=topic)["partitions"] == 3, "metadata names another number of partitions"
    c.send(topic, sample(6, 3, c.caps, "configs"))  # leaders must serve at once
    c.eventually("create", topic=topic + "-gone", partitions=1, configs={})
    c.eventually("delete", topic=topic + "-gone")
    try:
        c.driver.call("create", topic=topic, partitions=1, configs={})
    except Refused as e:
        assert e.code == 36 or "exist" in str(e), f"creating a topic twice: {e.code} {e}"
    else:
        assert c.name == "kafkajs", "creating a topic twice was no error"  # kafkajs answers false


def metadata(c):
    topic = c.topic("auto")
    got = c.driver.call("metadata", topic=topic)
    want = sorted([b["node_id"], b["host"], b["port"]] for b in c.cluster.metadata(None)["brokers"])
    assert got["partitions"] == 1, got
    assert got["brokers"] == [] or sorted(got["brokers"]) == want, f"{got['brokers']} against {want}"


def round_trip(codec):
    def case(c):
        topic = c.topic("codecs")
        if codec == "none":
            c.create(topic, 3)
        first = {p: c.ledger.length(topic, p) for p in range(3)}
        c.send(topic, sample(30, 3, c.caps, codec), codec=codec)
        for p in range(3):
            found = {b.codec for b in c.batches(topic, p, first[p])}
            assert found == {codec}, f"{topic}-{p} holds {found} instead of {codec}"
        check_read(c, topic)
    case.__name__ = f"round_trip_{codec}"
    return case


def batch_1mib(c):
    topic = c.topic("big")
    c.create(topic, 1)
    c.send(topic, big(100, 10_000, c.caps, "100"), batch_bytes=1_030_000, max_request=1_040_000)
    largest = max(b.size for b in c.batches(topic, 0, 0))
    assert largest > 500_000, f"the largest batch has only {largest} bytes"
    c.send(topic, big(1, 1_000_000, c.caps, "1"), batch_bytes=1_030_000, max_request=1_040_000)
    check_read(c, topic)


def too_large(c):
    topic = c.topic("too-large")
    c.create(topic, 1)
    try:
        c.driver.call("produce", topic=topic, records=big(1, 1_200_000, c.caps, "large"), max_request=3_000_000, batch_bytes=1_030_000,
                      delivery_ms=15_000)
    except Refused as e:
        assert e.code == MESSAGE_TOO_LARGE, f"error {e.code} {e}"
    else:
        raise AssertionError("1.2 MB were accepted where max.message.bytes is 1048588")
    c.send(topic, sample(2, 1, c.caps, "after"), max_request=3_000_000, batch_bytes=1_030_000, delivery_ms=15_000)
    check_read(c, topic)


def idempotent(c):
    topic = c.topic("idempotent")
    c.create(topic, 3)
    for i in range(4):
        c.send(topic, sample(60, 3, c.caps, f"idem{i}"), idempotent=True, batch_bytes=4_000)
    for p in range(3):
        following = {}
        for b in c.batches(topic, p, 0):
            assert b.producer_id >= 0 and b.producer_epoch >= 0, f"{topic}-{p} offset {b.base_offset} has no producer id"
            key = (b.producer_id, b.producer_epoch)
            assert b.base_sequence == following.get(key, 0), f"{topic}-{p}: sequence {b.base_sequence}, expected {following.get(key, 0)}"
            following[key] = b.base_sequence + b.count
    check_read(c, topic)


def acks(n):
    def case(c):
        topic = c.topic("acks")
        if n == 0:
            c.create(topic, 2)
        for i in range(3):
            c.send(topic, sample(6, 2, c.caps, f"acks{n}{i}"), acks=n)
        check_read(c, topic)
    case.__name__ = f"acks_{'all' if n == -1 else n}"
    return case


def positions(c):
    """From earliest, an offset, a timestamp, latest; offsets by time with timestamps that do not only rise."""
    topic = c.topic("positions")
    c.create(topic, 1)
    base = now_ms() - 1_000_000
    stamps = [base + 1000 * s for s in (0, 1, 5, 2, 3, 6, 7, 8, 9, 10, 11, 12)]
    leader = c.cluster.leader(topic)
    for i in range(0, 12, 4):  # three batches of four
        part = [batch.Record(f"v{j}".encode(), f"k{j}".encode(), stamps[j]) for j in range(i, i + 4)]
        assert produce(leader, topic, 0, batch.build(part))["error_code"] == 0
        c.ledger.add_in_order(topic, [{"p": 0, "ts": r.timestamp, "k": b64(r.key), "v": b64(r.value), "h": []} for r in part])
    for ts, offset in ((base - 1, 0), (base, 0), (base + 1, 1), (base + 1000, 1), (base + 1001, 2), (base + 5500, 5),
                       (base + 6000, 5), (base + 9001, 9), (base + 12000, 11)):
        got = c.driver.call("time", topic=topic, p=0, ts=ts)["offset"]
        assert got == offset, f"first offset at or after base+{ts - base}: {got}, expected {offset}"
    got = c.driver.call("time", topic=topic, p=0, ts=base + 12001)["offset"]
    assert got in (-1, 12), f"offset behind the last timestamp: {got}"
    got = c.driver.call("offsets", topic=topic, p=0)
    assert (got["earliest"], got["latest"]) == (0, 12), got
    c.read(topic, 0, "earliest")
    c.read(topic, 0, "offset", 6, value=6)  # inside a batch
    c.read(topic, 0, "offset", 8, value=8)  # at its start
    c.read(topic, 0, "timestamp", 9, value=base + 9500)
    got = c.driver.call("consume", topic=topic, p=0, at="latest", count=0, timeout_ms=1000)
    assert got["position"] == 12, got["position"]
    c.send(topic, sample(3, 1, c.caps, "late"))
    c.read(topic, 0, "continue", 12)


def new_partitions(c):
    """The client must learn of partitions that were added while it is connected."""
    topic = c.topic("grows")
    c.create(topic, 1)
    c.send(topic, sample(2, 1, c.caps, "grows"))
    got = c.cluster.call(apis.CREATE_PARTITIONS, 1, {"topics": [{"name": topic, "count": 3, "assignments": None}], "timeout_ms": 10000,
                                                     "validate_only": False})
    assert got["results"][0]["error_code"] == 0, got
    records = [{**r, "p": 2} for r in sample(2, 1, c.caps, "grown")]
    deadline = time.monotonic() + 15
    while True:
        try:
            c.send(topic, records)
            break
        except Refused:  # not yet refreshed: every client reports that in its own way
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
            c.send(topic, sample(1, 1, c.caps, "touch"))
    check_read(c, topic)


def administration(c):
    """Log directories, quorum, elections, reassignments, producers, brokers: Kafka's own admin client asks for all of them."""
    if c.name != "java":
        raise Skipped("only the Java client has all of these")
    topic = c.topic("administered")
    c.create(topic, 2)
    records = [{**r, "p": 1} for r in sample(20, 1, c.caps, "administered")]
    c.send(topic, records, idempotent=True)
    got = c.driver.call("administer", topic=topic, p=1)
    assert got["voters"] == 1 and got["metadata"] > 0 and got["bytes"] > 0 and got["free"] > 0, got
    assert (got["election"], got["moves"], got["unregister"]) == ("ElectionNotNeededException", 0, "BrokerIdNotRegisteredException"), got
    assert got["sequences"] == [19] and got["nodes"], got


def again(c):
    """After a restart: the connected client writes on and reads its own old and new data."""
    for codec in ("none", "zstd"):
        c.send(c.topic("codecs"), sample(9, 3, c.caps, f"again-{codec}-{now_ms()}"), codec=codec)
    c.send(c.topic("idempotent"), sample(9, 3, c.caps, f"again-{now_ms()}"), idempotent=True, batch_bytes=4_000)
    for what in ("codecs", "idempotent", "big", "positions"):
        check_read(c, c.topic(what))
    group_cases.again(c)


# Clients whose idempotent producer retries by itself until the broker is back. kafkajs calls its own experimental; kcat is one
# process per command.
WRITES_THROUGH = ("confluent-kafka", "kafka-python", "java", "franz-go")


def write_through(c, stop):
    """An idempotent producer writes while the broker goes and comes: each record must be there once, in order."""
    topic = c.topic("through")
    if not c.ledger.partitions(topic):
        c.create(topic, 3)
    calls = 0
    while not stop.is_set() or calls == 0:
        c.send(topic, sample(30, 3, c.caps, f"through-{calls}"), idempotent=True, batch_bytes=2_000, delivery_ms=40_000)
        calls += 1
    c.send(topic, sample(30, 3, c.caps, "through-last"), idempotent=True, batch_bytes=2_000, delivery_ms=40_000)
    c.read_all([topic])


def b64(data):
    return base64.b64encode(data).decode()


CASES = [auto_create, metadata, create_and_describe, *[round_trip(x) for x in CODECS], batch_1mib, too_large, idempotent,
         acks(0), acks(1), acks(-1), positions, new_partitions, administration, *group_cases.CASES]
