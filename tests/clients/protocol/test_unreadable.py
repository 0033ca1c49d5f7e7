"""Records in __consumer_offsets that no coordinator can read. An administrator's tool may write there (client id __admin_client), so they
can be there; a coordinator that loads goes on without them and says so. Kafka does so for unknown kinds of records; with others its
coordinator does not come up, so the oracle is given the unknown kinds only."""
import struct
import sys
import time

from . import apis, batch
from .batch import Record
from .client import Cluster, produce_request
from .groups import commit, coordinator, offsets
from .suite import Env, equal, test

ONE_PARTITION = {"offsets.topic.num.partitions": "1"}
OFFSETS = "__consumer_offsets"


def text(value):
    return struct.pack(">h", len(value)) + value.encode()


def offset_key(group, topic, partition):
    return struct.pack(">h", 1) + text(group) + text(topic) + struct.pack(">i", partition)


UNKNOWN_KINDS = [(struct.pack(">h", 99) + b"what is this", b"x"), (struct.pack(">h", -7), None)]
UNREADABLE = [
    (b"", b"no key version"),
    (b"\x00", b"half a key version"),
    (offset_key("g", "t", 0)[:-2], b"a cut key"),
    (struct.pack(">hh", 1, 2000) + b"short", b"a string longer than its key"),
    (offset_key("g", "t", 0), b""),
    (offset_key("g", "t", 0), struct.pack(">h", 77) + b"a value version nobody has"),
    (offset_key("g", "t", 0), struct.pack(">hq", 3, 5)),
    (struct.pack(">h", 2) + text("g"), struct.pack(">h", 3) + text("consumer") + b"\0\0"),
    (struct.pack(">h", 2) + text("g"), struct.pack(">h", 3) + text("consumer") + struct.pack(">ihhqi", 1, -1, -1, 0, 2**31 - 1)),
    (struct.pack(">h", 5) + text("g") + text("m"), struct.pack(">h", 0)),
    (struct.pack(">h", 8) + text("g") + text("m"), struct.pack(">hiib", 0, 1, 0, 0) + b"\xff\xff\xff\xff\x0f"),
]


def store(env, group, topic, offset):
    """Commits; a coordinator may just be coming up."""
    deadline = time.monotonic() + 30
    while (got := commit(coordinator(env, group), group, topic, {0: offset})[0]) in (14, 15, 16) and time.monotonic() < deadline:
        time.sleep(0.1)
    equal(got, 0, "commit")


def put(cluster, records, codec="none", client_id="__admin_client"):
    c = cluster.leader(OFFSETS)
    data = batch.build([Record(value, key, int(time.time() * 1000)) for key, value in records], codec=codec)
    got = c.call(apis.PRODUCE, 8, produce_request(OFFSETS, 0, data), client_id=client_id)
    return got["topics"][0]["partitions"][0]["error_code"]


@test
def a_coordinator_that_loads_passes_over_what_it_cannot_read(env):
    if env.kind not in ("pelton", "kafka"):
        return
    lib, mode, is_pelton = sys.modules["lib"], getattr(env.broker, "mode", "direct"), env.kind == "pelton"
    broker = (lib.Pelton(mode, 1, binary=env.broker.binary, settings=ONE_PARTITION) if is_pelton else lib.Kafka(mode, settings=ONE_PARTITION))
    broker.start()
    try:
        mine = Env(broker)
        topic = mine.topic()
        store(mine, "g", topic, 42)
        equal(put(mine.cluster, UNKNOWN_KINDS, client_id="somebody"), 17, "clients may not write there")
        equal(put(mine.cluster, UNKNOWN_KINDS), 0)
        equal(put(mine.cluster, UNKNOWN_KINDS, codec="gzip"), 0)
        bad = len(UNKNOWN_KINDS) * 2
        if is_pelton:
            bad += len(UNREADABLE)
            equal(put(mine.cluster, UNREADABLE), 0)
        store(mine, "g", topic, 43)
        store(mine, "late", topic, 7)
        for end in (broker.stop, broker.kill):
            mine.cluster.close_all()
            end()
            log_from = broker.log_path.stat().st_size
            broker.start()
            mine = Env(broker)
            equal(offsets(coordinator(mine, "g"), "g", {topic: [0]}), {(topic, 0): 43})
            equal(offsets(coordinator(mine, "late"), "late", {topic: [0]}), {(topic, 0): 7})
            store(mine, "g", topic, 43)
            if is_pelton:
                log = broker.log_path.read_bytes()[log_from:].decode(errors="replace")
                lines = [line for line in log.splitlines() if "skipped the" in line]
                equal(len(lines), 10, "the first ten have a line each")
                assert any("a kind of record this broker does not know" in line for line in lines), lines
                assert f"{OFFSETS}-0 is loaded without {bad} records that could not be read" in log, log[-2000:]
        mine.cluster.close_all()
    finally:
        broker.kill()
        broker.destroy()
