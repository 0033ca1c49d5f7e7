"""Retention and compaction: segments go by size and time, of each key the last record stays. The broker is one of the tests'
own, of the kind under test, that looks after its logs several times a second. Segments end by segment.ms: one of segment.bytes
would need a mebibyte each."""
import atexit
import sys
import time

from . import apis, batch
from .batch import Record
from .client import EARLIEST, LATEST, Cluster, fetch_one, produce
from .suite import equal, test

OFFSET_OUT_OF_RANGE, POLICY_VIOLATION, INVALID_RECORD = 1, 44, 87
OFTEN = {"log.initial.task.delay.ms": "200", "log.retention.check.interval.ms": "200", "log.cleaner.backoff.ms": "200"}
WAIT_S = 30.0
_own = {}


def own(env):
    """A cluster whose broker sweeps often; started at first use, ended with the process. None if `env`'s is somebody else's."""
    if env.kind not in ("pelton", "kafka"):
        return None
    mode = getattr(env.broker, "mode", "direct")
    if (env.kind, mode) not in _own:
        lib = sys.modules["lib"]
        broker = (lib.Pelton(mode, 1, binary=env.broker.binary, settings=OFTEN) if env.kind == "pelton"
                  else lib.Kafka(mode, settings=OFTEN))
        broker.start()
        atexit.register(_end, broker)
        _own[env.kind, mode] = broker
    return Cluster(_own[env.kind, mode].bootstrap)


def _end(broker):
    broker.kill()
    broker.destroy()


def now_ms():
    return int(time.time() * 1000)


def put(cluster, topic, *records, codec="none", **more):
    """Produces one batch; its base offset."""
    c = cluster.leader(topic)
    got = produce(c, topic, 0, batch.build([Record(v, k, now_ms() if ts is None else ts) for k, v, ts in records], codec=codec, **more))
    c.close()
    equal(got["error_code"], 0, "produce")
    return got["base_offset"]


def segment_after(cluster, topic, *records, **more):
    """Produces one batch and lets its segment end before the next one comes."""
    base = put(cluster, topic, *records, **more)
    time.sleep(0.25)
    return base


def until(what, look):
    """Waits for what the broker does in its own time."""
    deadline = time.monotonic() + WAIT_S
    while True:
        got = look()
        if got:
            return got
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {WAIT_S:.0f} s: {what}")
        time.sleep(0.1)


def start_of(cluster, topic):
    error, _, offset = cluster.offset(topic, 0, EARLIEST)
    equal(error, 0, "ListOffsets")
    return offset


def alter(cluster, topic, **configs):
    got = cluster.call(apis.INCREMENTAL_ALTER_CONFIGS, 1, {"validate_only": False, "resources": [
        {"type": 2, "name": topic, "configs": [{"name": k.replace("_", "."), "operation": 0, "value": v}
                                               for k, v in configs.items()]}]})
    equal(got["responses"][0]["error_code"], 0, "alter")


def contents(cluster, topic):
    """[(offset, key, value)] of every record, and every batch."""
    batches = cluster.fetch_batches(topic, 0)
    return [(r.offset, r.key, r.value) for b in batches for r in batch.records(b)], batches


@test
def retention_by_time_moves_the_start(env):
    cluster = own(env)
    if cluster is None:
        return
    topic = env.name()
    cluster.create(topic, 1, {"segment.ms": "100", "retention.ms": "3600000"})
    old = now_ms() - 7_200_000
    for n in range(3):
        segment_after(cluster, topic, (b"k", b"%d" % n, old + n))
    put(cluster, topic, (b"k", b"new", None))
    until("the start moves to 3", lambda: start_of(cluster, topic) == 3)
    equal(cluster.offset(topic, 0, LATEST)[2], 4, "latest")
    equal([r[0] for r in contents(cluster, topic)[0]], [3], "what is left")
    c = cluster.leader(topic)
    equal(fetch_one(c, topic, 0, 1)["error_code"], OFFSET_OUT_OF_RANGE, "a fetch below the start")


@test
def when_all_has_expired_the_log_is_empty_and_goes_on(env):
    cluster = own(env)
    if cluster is None:
        return
    topic = env.name()
    cluster.create(topic, 1, {"retention.ms": "3600000"})
    put(cluster, topic, (b"k", b"a", now_ms() - 7_200_000), (b"k", b"b", now_ms() - 7_200_000))
    until("the start moves to the end", lambda: start_of(cluster, topic) == 2)
    equal(put(cluster, topic, (b"k", b"c", None)), 2, "offsets go on")
    equal([r[2] for r in contents(cluster, topic)[0]], [b"c"], "what is left")


@test
def retention_by_size_keeps_the_limit(env):
    cluster = own(env)
    if cluster is None:
        return
    topic = env.name()
    cluster.create(topic, 1, {"segment.ms": "100", "retention.bytes": "25000", "retention.ms": "-1"})
    for n in range(5):
        segment_after(cluster, topic, (b"k", b"%d" % n * 10_000, None))
    until("the start moves to 2", lambda: start_of(cluster, topic) == 2)
    time.sleep(0.7)
    equal(start_of(cluster, topic), 2, "no more than that goes")
    alter(cluster, topic, retention_bytes="15000")
    until("a smaller limit counts at once", lambda: start_of(cluster, topic) == 3)


@test
def without_limits_all_stays(env):
    cluster = own(env)
    if cluster is None:
        return
    topic = env.name()
    cluster.create(topic, 1, {"segment.ms": "100", "retention.bytes": "-1", "retention.ms": "-1"})
    for n in range(3):
        segment_after(cluster, topic, (b"k", b"%d" % n, 1000 + n))
    time.sleep(0.7)
    equal(start_of(cluster, topic), 0, "start")


COMPACT = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"}


def fill(cluster, topic):
    """Three keys, four times each, in segments of their own; then two more so that all of these have ended."""
    for n in range(4):
        segment_after(cluster, topic, *((k, b"%s%d" % (k, n), None) for k in (b"a", b"b", b"c")), codec=["none", "gzip"][n % 2])
    for _ in range(2):
        segment_after(cluster, topic, (b"end", b"x", None))


@test
def compaction_keeps_the_last_record_of_each_key_at_its_offset(env):
    cluster = own(env)
    if cluster is None:
        return
    topic = env.name()
    cluster.create(topic, 1, COMPACT)
    fill(cluster, topic)
    want = [(9, b"a", b"a3"), (10, b"b", b"b3"), (11, b"c", b"c3")]
    until("only the last of a, b and c", lambda: contents(cluster, topic)[0][:3] == want)
    records, batches = contents(cluster, topic)
    equal([b.codec for b in batches if b.base_offset == 9], ["gzip"], "the codec stays")
    equal(cluster.offset(topic, 0, LATEST)[2], 14, "latest")
    equal(start_of(cluster, topic), 0, "compaction does not move the start")
    c = cluster.leader(topic)
    part = fetch_one(c, topic, 0, 4)
    equal(part["error_code"], 0, "a fetch inside a gap")
    equal(batch.parse(part["records"])[0].last_offset >= 4, True, "gets what comes next")


@test
def a_tombstone_deletes_its_key_and_then_goes_itself(env):
    cluster = own(env)
    if cluster is None:
        return
    topic = env.name()
    cluster.create(topic, 1, {**COMPACT, "delete.retention.ms": "1500"})
    segment_after(cluster, topic, (b"a", b"1", None), (b"b", b"1", None))
    segment_after(cluster, topic, (b"a", None, None))
    for _ in range(2):
        segment_after(cluster, topic, (b"end", b"x", None))
    of_a = lambda: [(o, v) for o, k, v in contents(cluster, topic)[0] if k == b"a"]
    until("the value of a goes, its tombstone stays", lambda: of_a() == [(2, None)])
    flagged = [b for b in contents(cluster, topic)[1] if b.attributes & 0x40]
    equal(len(flagged), 1, "the batch says when the tombstone may go")
    time.sleep(1.6)

    def gone():
        segment_after(cluster, topic, (b"end", b"x", None))
        return of_a() == []
    until("the tombstone goes", gone)
    equal([v for o, k, v in contents(cluster, topic)[0] if k == b"b"], [b"1"], "b is still there")


def _producer_id(cluster):
    got = cluster.call(apis.INIT_PRODUCER_ID, 1, {"transactional_id": None, "transaction_timeout_ms": 60000})
    return None if got["error_code"] else got["producer_id"] + 1


@test
def a_producers_last_sequence_survives_compaction(env):
    cluster = own(env)
    if cluster is None:
        return
    topic = env.name()
    cluster.create(topic, 1, COMPACT)
    # Kafka fetches its first block of ids only when asked.
    id_ = until("a producer id", lambda: _producer_id(cluster)) - 1
    more = {"producer_id": id_, "producer_epoch": 0}
    segment_after(cluster, topic, (b"a", b"1", None), base_sequence=0, **more)
    segment_after(cluster, topic, (b"a", b"2", None), base_sequence=1, **more)
    for n in range(3):
        segment_after(cluster, topic, (b"a", b"later", None))
    until("the records of the producer go", lambda: contents(cluster, topic)[0][0][0] >= 2)
    left = [(b.last_offset, b.base_sequence, b.count) for b in contents(cluster, topic)[1] if b.producer_id == id_]
    equal(left, [(1, 1, 0)], "an empty batch with the last sequence")
    equal(put(cluster, topic, (b"a", b"2", None), base_sequence=1, **more), 1, "a duplicate is known")
    put(cluster, topic, (b"a", b"3", None), base_sequence=2, **more)


@test
def compact_and_delete_does_both(env):
    cluster = own(env)
    if cluster is None:
        return
    topic = env.name()
    cluster.create(topic, 1, {**COMPACT, "cleanup.policy": "compact,delete", "retention.ms": "3600000"})
    old = now_ms() - 7_200_000
    segment_after(cluster, topic, (b"a", b"old", old))
    for n in range(3):
        segment_after(cluster, topic, (b"b", b"%d" % n, None))
    segment_after(cluster, topic, (b"end", b"x", None))
    until("the old one goes", lambda: start_of(cluster, topic) >= 1)
    until("of b the last stays", lambda: [r[2] for r in contents(cluster, topic)[0] if r[1] == b"b"] == [b"2"])


@test
def a_compacted_topic_takes_no_record_without_key_and_no_deletion(env):
    cluster = own(env)
    if cluster is None:
        return
    topic = env.name()
    cluster.create(topic, 1, COMPACT)
    c = cluster.leader(topic)
    got = produce(c, topic, 0, batch.build([Record(b"v", b"k", now_ms()), Record(b"v", None, now_ms())]))
    equal((got["error_code"], [e["batch_index"] for e in got["record_errors"]]), (INVALID_RECORD, [1]), "produce")
    put(cluster, topic, (b"k", b"v", None))
    got = c.call(apis.DELETE_RECORDS, 2, {"timeout_ms": 5000, "topics": [
        {"name": topic, "partitions": [{"index": 0, "offset": 1}]}]})["topics"][0]["partitions"][0]
    equal(got["error_code"], POLICY_VIOLATION, "DeleteRecords")


@test
def describe_shows_the_settings(env):
    topic = env.topic(configs={"retention.ms": "12345", "retention.bytes": "99999", "cleanup.policy": "compact,delete"})
    got = env.cluster.call(apis.DESCRIBE_CONFIGS, 4, {"include_synonyms": False, "include_documentation": False, "resources": [
        {"type": 2, "name": topic, "keys": None}]})["results"][0]["configs"]
    values = {c["name"]: c["value"] for c in got}
    for name, want in {"retention.ms": "12345", "retention.bytes": "99999", "cleanup.policy": "compact,delete",
                       "delete.retention.ms": "86400000", "min.cleanable.dirty.ratio": "0.5"}.items():
        equal(values[name], want, name)
