"""compression.type of topics: producer keeps what comes, with others the broker compresses anew. Rules: Kafka's LogValidator."""
import time

from . import apis, batch
from .batch import Record
from .client import LATEST, produce
from .suite import equal, test

MESSAGE_TOO_LARGE = 10
STORED = {"uncompressed": "none", "gzip": "gzip", "snappy": "snappy", "lz4": "lz4", "zstd": "zstd"}


def some(count=3):
    now = int(time.time() * 1000)
    return [Record(b"value %d " % i * 50, b"key %d" % i, now + (i * 7) % 5, [("h", b"x"), ("h", None)]) for i in range(count)]


def put(env, topic, data):
    return produce(env.leader(topic), topic, 0, data)


def plain(records):
    return [(r.offset, r.timestamp, r.key, r.value, r.headers) for r in records]


@test
def batches_get_the_topics_codec_and_keep_all_else(env):
    for kind, codec in STORED.items():
        topic = env.topic(configs={"compression.type": kind})
        records, base = some(), 0
        for came in ("none", "gzip", "none"):
            got = put(env, topic, batch.build(records, codec=came))
            equal((got["error_code"], got["base_offset"]), (0, base), f"{came} to {kind}")
            base += len(records)
        stored = env.cluster.fetch_batches(topic, 0)  # checks the CRCs
        equal([b.codec for b in stored], [codec] * 3, kind)
        equal([(b.base_offset, b.last_offset, b.count) for b in stored], [(0, 2, 3), (3, 5, 3), (6, 8, 3)], kind)
        equal({(b.base_timestamp, b.max_timestamp) for b in stored}, {(records[0].timestamp, max(r.timestamp for r in records))}, kind)
        if codec in ("none", "gzip"):
            want = [(3 * n + i, r.timestamp, r.key, r.value, r.headers) for n in range(3) for i, r in enumerate(records)]
            equal([r for b in stored for r in plain(batch.records(b))], want, kind)


@test
def producer_keeps_what_comes_and_an_altered_type_counts_from_then_on(env):
    topic = env.topic()
    equal(put(env, topic, batch.build(some(), codec="gzip"))["error_code"], 0)
    equal(put(env, topic, batch.build(some()))["error_code"], 0)
    got = env.cluster.call(apis.INCREMENTAL_ALTER_CONFIGS, 1, {"validate_only": False, "resources": [
        {"type": 2, "name": topic, "configs": [{"name": "compression.type", "operation": 0, "value": "gzip"},
                                               {"name": "compression.gzip.level", "operation": 0, "value": "9"}]}]})
    equal(got["responses"][0]["error_code"], 0)
    deadline = time.monotonic() + (0 if env.kind == "pelton" else 5)
    while True:
        equal(put(env, topic, batch.build(some()))["error_code"], 0)
        codecs = [b.codec for b in env.cluster.fetch_batches(topic, 0)]
        if codecs[-1] == "gzip" or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    equal((codecs[:2], codecs[-1]), (["gzip", "none"], "gzip"))


@test(only="pelton")
def a_retried_batch_of_an_idempotent_producer_stays_one(env):
    """Apache Kafka 4.3.1 answers the retry with offset 6 when it compresses anew."""
    topic = env.topic(configs={"compression.type": "uncompressed"})
    got = env.cluster.call(apis.INIT_PRODUCER_ID, 1, {"transactional_id": None, "transaction_timeout_ms": 1000})
    made = {"producer_id": got["producer_id"], "producer_epoch": got["producer_epoch"]}
    first = batch.build(some(), base_sequence=0, codec="gzip", **made)
    equal(put(env, topic, first)["base_offset"], 0)
    equal(put(env, topic, batch.build(some(), base_sequence=3, codec="gzip", **made))["base_offset"], 3)
    again = put(env, topic, first)
    equal((again["error_code"], again["base_offset"]), (0, 0), "the same batch again")
    equal(env.cluster.offset(topic, 0, LATEST)[2], 6)
    equal([(b.codec, b.base_sequence) for b in env.cluster.fetch_batches(topic, 0)], [("none", 0), ("none", 3)])


@test
def what_is_stored_is_held_against_max_message_bytes(env):
    topic = env.topic(configs={"compression.type": "uncompressed", "max.message.bytes": "2000"})
    packed = batch.build([Record(b"\0" * 10_000, b"k", int(time.time() * 1000))], codec="gzip")
    assert len(packed) < 500
    equal(put(env, topic, packed)["error_code"], MESSAGE_TOO_LARGE)
    equal(env.cluster.offset(topic, 0, LATEST)[2], 0)


@test
def records_that_cannot_be_taken_apart_are_refused(env):
    topic = env.topic(configs={"compression.type": "uncompressed"})
    liar = batch.build(some(), attributes=1)  # says gzip, is not
    assert put(env, topic, liar)["error_code"] != 0
    few = batch.build(some(), codec="gzip", count=4, last_offset_delta=3)
    assert put(env, topic, few)["error_code"] != 0, "fewer records than its header says"
    equal(env.cluster.offset(topic, 0, LATEST)[2], 0)
    equal(put(env, topic, batch.build(some(), codec="gzip"))["error_code"], 0, "and the partition goes on")


@test
def append_time_is_stamped_on_what_is_compressed_anew(env):
    topic = env.topic(configs={"compression.type": "gzip", "message.timestamp.type": "LogAppendTime"})
    got = put(env, topic, batch.build([Record(b"v", b"k", 1000), Record(b"w", b"l", 900)]))
    equal(got["error_code"], 0)
    stored = env.cluster.fetch_batches(topic, 0)
    equal((stored[0].codec, stored[0].max_timestamp, stored[0].attributes & 8), ("gzip", got["log_append_time_ms"], 8))
