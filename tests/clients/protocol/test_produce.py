"""Produce: acks, limits, what is refused. Rules: ux.md §5.2 #25, #27; kafka LogValidator.java."""
from . import apis, batch
from .batch import Record
from .client import LATEST, fetch_one, produce, produce_request
from .suite import equal, test
from .wire import Timeout

CORRUPT_MESSAGE, UNKNOWN_TOPIC, MESSAGE_TOO_LARGE, INVALID_REQUIRED_ACKS = 2, 3, 10, 21
UNSUPPORTED_FOR_MESSAGE_FORMAT, INVALID_TIMESTAMP, INVALID_RECORD, UNKNOWN_TOPIC_ID = 43, 32, 87, 100
ONE = [Record(b"v", b"k")]


def end(env, topic, partition=0):
    return env.cluster.offset(topic, partition, LATEST)[2]


@test
def every_version_from_3_is_served(env):
    topic = env.topic()
    c = env.leader(topic)
    for i, version in enumerate(range(3, 13)):
        got = produce(c, topic, 0, batch.build(ONE), version=version)
        equal((got["error_code"], got["base_offset"]), (0, i), f"v{version}")


@test
def version_13_names_topics_by_id(env):
    topic = env.topic()
    c = env.leader(topic)
    high = {a["key"]: a["max"] for a in c.call(apis.API_VERSIONS, 0, {})["apis"]}[0]
    if high < 13:
        return
    topic_id = env.cluster.metadata([topic], version=12)["topics"][0]["topic_id"]
    request = produce_request(topic, 0, batch.build(ONE))
    request["topics"][0]["topic_id"] = topic_id
    equal(c.call(apis.PRODUCE, 13, request)["topics"][0]["partitions"][0]["error_code"], 0)
    request["topics"][0]["topic_id"] = b"\x01" * 16
    equal(c.call(apis.PRODUCE, 13, request)["topics"][0]["partitions"][0]["error_code"], UNKNOWN_TOPIC_ID)


@test
def acks_0_gets_no_answer(env):
    topic = env.topic()
    c = env.leader(topic)
    c.send(apis.PRODUCE, 8, produce_request(topic, 0, batch.build(ONE), acks=0))
    got = c.call(apis.API_VERSIONS, 0, {})  # raises when the produce was answered: the correlation id differs
    equal(got["error_code"], 0)
    for _ in range(100):
        if end(env, topic) == 1:
            break
    equal(end(env, topic), 1, "end offset")


@test
def acks_0_error_closes_the_connection(env):
    topic = env.topic()
    c = env.leader(topic)
    c.send(apis.PRODUCE, 8, produce_request(topic, 99, batch.build(ONE), acks=0))
    assert c.closes(), "an error at acks=0 must be told by closing"


@test
def other_acks_are_refused(env):
    topic = env.topic()
    for acks in (2, -2, 100):
        got = produce(env.leader(topic), topic, 0, batch.build(ONE), acks=acks)
        equal(got["error_code"], INVALID_REQUIRED_ACKS, f"acks={acks}")
    equal(end(env, topic), 0, "nothing is appended")


@test
def unknown_topic_and_partition(env):
    topic = env.topic()
    c = env.leader(topic)
    equal(produce(c, topic, 7, batch.build(ONE))["error_code"], UNKNOWN_TOPIC, "partition")
    equal(produce(c, env.name("none"), 0, batch.build(ONE))["error_code"], UNKNOWN_TOPIC, "topic")


@test
def partitions_of_one_request_answer_apart(env):
    """A bad partition does not spoil a good one."""
    topic = env.topic()
    request = produce_request(topic, 0, batch.build(ONE))
    request["topics"][0]["partitions"].append({"index": 55, "records": batch.build(ONE)})
    got = env.leader(topic).call(apis.PRODUCE, 8, request)["topics"][0]["partitions"]
    equal({p["index"]: p["error_code"] for p in got}, {0: 0, 55: UNKNOWN_TOPIC})


@test
def too_large_batch(env):
    topic = env.topic(configs={"max.message.bytes": "5000"})
    c = env.leader(topic)
    equal(produce(c, topic, 0, batch.build([Record(b"x" * 5000)]))["error_code"], MESSAGE_TOO_LARGE)
    equal(produce(c, topic, 0, batch.build([Record(b"x" * 4900)]))["error_code"], 0, "just below")
    equal(end(env, topic), 1, "end offset")


@test
def default_limit_is_1_mib(env):
    topic = env.topic()
    c = env.leader(topic)
    overhead = len(batch.build([Record(b"x" * 1_000_000)])) - 1_000_000
    equal(produce(c, topic, 0, batch.build([Record(b"x" * (1048588 - overhead))]))["error_code"], 0, "1048588 bytes")
    equal(produce(c, topic, 0, batch.build([Record(b"x" * (1048589 - overhead))]))["error_code"], MESSAGE_TOO_LARGE, "one more")


@test
def wrong_crc_is_corrupt(env):
    topic = env.topic()
    c = env.leader(topic)
    equal(produce(c, topic, 0, batch.build(ONE, break_crc=True))["error_code"], CORRUPT_MESSAGE)
    equal(end(env, topic), 0, "nothing is appended")


@test
def broken_batches_are_refused(env):
    """Each is an error, nothing is appended, and the broker lives."""
    topic = env.topic()
    good = batch.build(ONE)
    bad = {
        "empty records": b"", "half a header": good[:30], "cut": good[:-3], "magic 0": batch.build(ONE, magic=0),
        "magic 3": batch.build(ONE, magic=3), "count too high": batch.build(ONE, count=5),
        "count 0": batch.build(ONE, count=0), "negative count": batch.build(ONE, count=-1),
        "last offset delta": batch.build(ONE, last_offset_delta=9), "negative delta": batch.build(ONE, last_offset_delta=-1),
        "two batches with an id": batch.build(ONE, 1, 0, 0) + batch.build(ONE, 1, 0, 1),
    }
    for what, data in bad.items():
        if what in ("count too high", "count 0", "empty records") and env.kind == "kafka":
            continue  # Kafka notices some of these only when it must look inside
        c = env.leader(topic)
        try:
            got = produce(c, topic, 0, data)["error_code"]
            assert got != 0, f"{what}: accepted"
        except AssertionError:
            raise
        except Exception:
            pass  # a closed connection tells it as well
    equal(end(env, topic), 0, "nothing is appended")


@test
def keyless_record_on_a_compacted_topic(env):
    topic = env.topic(configs={"cleanup.policy": "compact"})
    got = produce(env.leader(topic), topic, 0, batch.build([Record(b"v", b"k"), Record(b"v")]))
    equal(got["error_code"], INVALID_RECORD)
    equal([e["batch_index"] for e in got["record_errors"]], [1], "which record")
    equal(end(env, topic), 0, "nothing is appended")


@test
def log_append_time(env):
    """Timestamps are the broker's, the CRC still holds, and the answer says so."""
    topic = env.topic(configs={"message.timestamp.type": "LogAppendTime"})
    c = env.leader(topic)
    got = produce(c, topic, 0, batch.build([Record(b"a"), Record(b"b")]))
    equal(got["error_code"], 0)
    assert got["log_append_time_ms"] > 1_700_000_000_000, got
    b = batch.parse(fetch_one(c, topic, 0, 0)["records"])[0]
    equal((b.attributes & 8, b.max_timestamp), (8, got["log_append_time_ms"]), "attributes, max timestamp")


@test
def far_future_timestamp_is_refused(env):
    import time
    topic = env.topic()
    ahead = int(time.time() * 1000) + 3 * 3_600_000
    got = produce(env.leader(topic), topic, 0, batch.build([Record(b"v", timestamp=ahead)]))
    equal(got["error_code"], INVALID_TIMESTAMP)


@test
def create_time_is_kept_and_answer_says_minus_1(env):
    topic = env.topic()
    c = env.leader(topic)
    equal(produce(c, topic, 0, batch.build([Record(b"v", timestamp=1234567)]))["log_append_time_ms"], -1)
    equal(batch.parse(fetch_one(c, topic, 0, 0)["records"])[0].base_timestamp, 1234567)


@test
def bytes_come_back_as_they_went(env):
    """Only base offset and leader epoch, which the CRC does not cover, are the broker's."""
    topic = env.topic()
    c = env.leader(topic)
    for codec in ("none", "gzip"):
        data = batch.build([Record(b"v" * 50, b"k", 1_700_000_000_000 + i, [("h", b"1"), ("n", None)]) for i in range(20)], codec=codec)
        start = produce(c, topic, 0, data)["base_offset"]
        back = fetch_one(c, topic, 0, start)["records"]
        equal(back[16:], data[16:], f"{codec}: bytes from the magic on")
        b = batch.parse(back)[0]
        equal((b.base_offset, b.leader_epoch >= 0), (start, True), codec)


@test
def transactional_id_without_transactions(env):
    """A transactional batch outside a transaction is an error, not an append (Kafka: INVALID_TXN_STATE and relatives)."""
    topic = env.topic()
    request = produce_request(topic, 0, batch.build(ONE, 5, 0, 0, attributes=16))
    request["transactional_id"] = "tx"
    try:
        got = env.leader(topic).call(apis.PRODUCE, 8, request)["topics"][0]["partitions"][0]["error_code"]
        assert got != 0, "accepted"
    except Timeout:
        raise AssertionError("no answer") from None
    equal(end(env, topic), 0, "nothing is appended")
