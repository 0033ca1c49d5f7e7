"""Fetch: batches whole, limits, waiting, errors. Rules: ux.md §5.2 #28, #29; kafka ReplicaManager.readFromLog, KIP-74."""
import threading
import time

from . import apis, batch
from .batch import Record
from .client import fetch_one, fetch_request, produce
from .suite import equal, test

OFFSET_OUT_OF_RANGE, UNKNOWN_TOPIC, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH, UNKNOWN_TOPIC_ID = 1, 3, 74, 75, 100


def filled(env, batches=5, each=4, size=100, partitions=1):
    """A topic whose partition 0 holds `batches` batches of `each` records."""
    topic = env.topic(partitions)
    c = env.leader(topic)
    for i in range(batches):
        got = produce(c, topic, 0, batch.build([Record(f"{i}.{j}".encode() * (size // 3), b"k") for j in range(each)]))
        equal(got["error_code"], 0)
    return topic, c


def bases(part):
    return [b.base_offset for b in batch.parse(part["records"])]


@test
def every_version_from_4_is_served(env):
    topic, c = filled(env)
    high = {a["key"]: a["max"] for a in c.call(apis.API_VERSIONS, 0, {})["apis"]}[1]
    topic_id = env.cluster.metadata([topic], version=12)["topics"][0]["topic_id"]
    for version in range(4, min(high, 17) + 1):
        request = fetch_request([(topic, 0, 0, 1 << 20)])
        request["topics"][0]["topic_id"] = topic_id
        got = c.call(apis.FETCH, version, request)
        part = got["topics"][0]["partitions"][0]
        equal((part["error_code"], bases(part), part["high_watermark"]), (0, [0, 4, 8, 12, 16], 20), f"v{version}")
        if version < 13:
            equal(got["topics"][0]["name"], topic, f"v{version}")
        else:
            equal(got["topics"][0]["topic_id"], topic_id, f"v{version}")


@test
def unknown_topic_id(env):
    topic, c = filled(env, 1)
    request = fetch_request([(topic, 0, 0, 1 << 20)])
    request["topics"][0]["topic_id"] = b"\x07" * 16
    got = c.call(apis.FETCH, 13, request)
    codes = [got["error_code"]] + [p["error_code"] for t in got["topics"] for p in t["partitions"]]
    assert UNKNOWN_TOPIC_ID in codes, codes


@test
def records_are_empty_never_null(env):
    """librdkafka: 'invalid MessageSetSize -1'. At the end, in an empty partition, and with errors."""
    topic, c = filled(env, 1)
    empty = env.topic()
    for version in (4, 11):
        equal(fetch_one(c, topic, 0, 4, version)["records"], b"", f"v{version} at the end")
        equal(fetch_one(env.leader(empty), empty, 0, 0, version)["records"], b"", f"v{version} of an empty partition")
        part = fetch_one(c, topic, 0, 99, version)
        equal((part["error_code"], part["records"]), (OFFSET_OUT_OF_RANGE, b""), f"v{version} out of range")
        part = fetch_one(c, topic, 77, 0, version)
        equal((part["error_code"], part["records"]), (UNKNOWN_TOPIC, b""), f"v{version} unknown partition")
        part = fetch_one(c, env.name("none"), 0, 0, version)
        equal((part["error_code"], part["records"]), (UNKNOWN_TOPIC, b""), f"v{version} unknown topic")


@test
def inside_a_batch_gives_the_whole_batch(env):
    topic, c = filled(env)
    for offset in range(20):
        equal(bases(fetch_one(c, topic, 0, offset))[0], offset // 4 * 4, f"from {offset}")


@test
def offset_out_of_range(env):
    topic, c = filled(env, 1)
    for offset in (5, 1 << 40, -1, -5):
        part = fetch_one(c, topic, 0, offset)
        equal(part["error_code"], OFFSET_OUT_OF_RANGE, f"at {offset}")


@test
def first_batch_comes_whatever_the_limits(env):
    topic, c = filled(env, size=3000)
    part = fetch_one(c, topic, 0, 4, partition_max_bytes=1)
    equal(bases(part), [4], "partition_max_bytes=1")
    part = fetch_one(c, topic, 0, 4, max_bytes=1)
    equal(bases(part)[:1], [4], "max_bytes=1")
    part = fetch_one(c, topic, 0, 4, partition_max_bytes=0)
    equal(bases(part)[:1] in ([4], []), True, "partition_max_bytes=0")


@test
def partition_limit_is_kept_behind_the_first_batch(env):
    topic, c = filled(env, batches=20, size=1000)
    one = batch.parse(fetch_one(c, topic, 0, 0, partition_max_bytes=1)["records"])[0].size
    part = fetch_one(c, topic, 0, 0, partition_max_bytes=one * 5 + 10)
    assert len(part["records"]) <= one * 5 + 10, len(part["records"])
    equal(len(bases(part)), 5, "batches")


@test
def request_limit_covers_all_partitions(env):
    """max_bytes is for the whole answer; only its first non-empty partition may exceed it."""
    topic = env.topic(3)
    conns = {}
    for p in range(3):
        address = env.cluster.address(topic, p)
        conns.setdefault(address, (env.leader(topic, p), []))[1].append(p)
    for c, parts in conns.values():
        for p in parts:
            for _ in range(5):
                produce(c, topic, p, batch.build([Record(b"x" * 10_000)]))
        got = c.call(apis.FETCH, 11, fetch_request([(topic, p, 0, 1 << 20) for p in parts], max_bytes=25_000))
        total = sum(len(p["records"]) for p in got["topics"][0]["partitions"])
        assert 10_000 < total <= 25_000, f"{total} bytes for max_bytes=25000"
        got = c.call(apis.FETCH, 11, fetch_request([(topic, p, 0, 1 << 20) for p in parts], max_bytes=10))
        equal(sum(1 for p in got["topics"][0]["partitions"] if batch.parse(p["records"])), 1, "partitions with a batch for max_bytes=10")


@test
def waits_until_max_wait(env):
    topic, c = filled(env, 1)
    began = time.monotonic()
    part = fetch_one(c, topic, 0, 4, max_wait_ms=400, min_bytes=1)
    took = time.monotonic() - began
    equal((part["error_code"], part["records"]), (0, b""))
    assert 0.35 < took < 1.5, f"{took:.2f} s instead of 0.4"


@test
def wakes_up_when_something_is_produced(env):
    topic, c = filled(env, 1)
    other = env.leader(topic)
    timer = threading.Timer(0.3, produce, (other, topic, 0, batch.build([Record(b"new")])))
    timer.start()
    began = time.monotonic()
    part = fetch_one(c, topic, 0, 4, max_wait_ms=5000, min_bytes=1)
    took = time.monotonic() - began
    timer.join()
    equal(bases(part), [4])
    assert took < 2, f"woke after {took:.2f} s"


@test
def waits_for_min_bytes(env):
    topic, c = filled(env, 1)
    other = env.leader(topic)

    def feed():
        for _ in range(4):
            time.sleep(0.15)
            produce(other, topic, 0, batch.build([Record(b"x" * 1000)]))
    t = threading.Thread(target=feed)
    t.start()
    part = fetch_one(c, topic, 0, 4, max_wait_ms=5000, min_bytes=3500)
    t.join()
    assert len(part["records"]) >= 3500, len(part["records"])


@test
def min_bytes_0_answers_at_once(env):
    topic, c = filled(env, 1)
    began = time.monotonic()
    fetch_one(c, topic, 0, 4, max_wait_ms=5000, min_bytes=0)
    assert time.monotonic() - began < 1


@test
def error_answers_at_once(env):
    topic, c = filled(env, 1)
    began = time.monotonic()
    fetch_one(c, topic, 0, 99, max_wait_ms=5000, min_bytes=1)
    assert time.monotonic() - began < 1


@test
def leader_epoch_is_checked(env):
    topic, c = filled(env, 1)
    request = fetch_request([(topic, 0, 0, 1000)])
    request["topics"][0]["partitions"][0]["current_leader_epoch"] = 1000
    equal(c.call(apis.FETCH, 11, request)["topics"][0]["partitions"][0]["error_code"], UNKNOWN_LEADER_EPOCH)


@test
def positions_in_the_answer(env):
    topic, c = filled(env, 2)
    part = fetch_one(c, topic, 0, 0)
    equal((part["high_watermark"], part["last_stable_offset"], part["log_start_offset"]), (8, 8, 0))
    equal(part["aborted"] or [], [], "aborted transactions")
    equal(part["preferred_read_replica"], -1)


@test
def read_committed_reads_the_same(env):
    topic, c = filled(env, 2)
    request = fetch_request([(topic, 0, 0, 1 << 20)])
    request["isolation_level"] = 1
    equal(bases(c.call(apis.FETCH, 11, request)["topics"][0]["partitions"][0]), [0, 4])


@test
def large_reads_come_whole(env):
    """20 MiB in 100 kB batches, read in 1 MiB and in 8 MiB steps: every byte, every CRC."""
    topic = env.topic()
    c = env.leader(topic)
    data = batch.build([Record(bytes(range(256)) * 390)])
    for i in range(100):
        equal(produce(c, topic, 0, data)["base_offset"], i)
    for step in (1 << 20, 8 << 20):
        at = 0
        while at < 100:
            raw = fetch_one(c, topic, 0, at, partition_max_bytes=step)["records"]
            assert 0 < len(raw) <= max(step, len(data)), len(raw)
            count = len(raw) // len(data)
            for i in range(count):
                equal(raw[i * len(data) + 16:(i + 1) * len(data)], data[16:], f"batch {at + i}")
            at += count
