"""ListOffsets, DeleteRecords, OffsetForLeaderEpoch. Rules: ux.md §5.2 #31, #33."""
from . import apis, batch
from .batch import Record
from .client import EARLIEST, EARLIEST_LOCAL, LATEST, LATEST_TIERED, MAX_TIMESTAMP, fetch_one, list_offsets, produce
from .suite import equal, test

OFFSET_OUT_OF_RANGE, UNKNOWN_TOPIC, UNKNOWN_LEADER_EPOCH = 1, 3, 75
T0 = 1_700_000_000_000


def filled(env, stamps=((0, 10, 20), (50, 30, 40), (60, 61, 62))):
    topic = env.topic(configs={"retention.ms": "-1"})
    c = env.leader(topic)
    for part in stamps:
        equal(produce(c, topic, 0, batch.build([Record(b"v", b"k", T0 + s) for s in part]))["error_code"], 0)
    return topic, c


@test
def every_version_from_1_is_served(env):
    topic, c = filled(env)
    high = {a["key"]: a["max"] for a in c.call(apis.API_VERSIONS, 0, {})["apis"]}[2]
    for version in range(1, min(high, 10) + 1):
        got = c.call(apis.LIST_OFFSETS, version, list_offsets(topic, 0, LATEST))["topics"][0]["partitions"][0]
        equal((got["error_code"], got["offset"], got["timestamp"]), (0, 9, -1), f"v{version}")


@test
def special_times(env):
    topic, _ = filled(env)
    equal(env.cluster.offset(topic, 0, LATEST), (0, -1, 9), "latest")
    equal(env.cluster.offset(topic, 0, EARLIEST), (0, -1, 0), "earliest")
    equal(env.cluster.offset(topic, 0, MAX_TIMESTAMP), (0, T0 + 62, 8), "max timestamp")
    equal(env.cluster.offset(topic, 0, EARLIEST_LOCAL, version=8), (0, -1, 0), "earliest local")


@test
def latest_tiered_without_tiers(env):
    topic, _ = filled(env)
    error, _, offset = env.cluster.offset(topic, 0, LATEST_TIERED, version=9)
    equal((error, offset), (0, -1), "no tiered storage")


@test
def special_times_of_an_empty_partition(env):
    topic = env.topic()
    for ts, want in ((LATEST, 0), (EARLIEST, 0), (MAX_TIMESTAMP, -1), (T0, -1)):
        error, stamp, offset = env.cluster.offset(topic, 0, ts)
        equal((error, stamp, offset), (0, -1, want), str(ts))


@test
def max_timestamp_inside_a_batch(env):
    topic, _ = filled(env, ((0, 500, 20), (50, 30, 40)))
    equal(env.cluster.offset(topic, 0, MAX_TIMESTAMP), (0, T0 + 500, 1))


@test
def by_time_is_exact(env):
    """The first record whose timestamp is at least the one asked for, also where timestamps go down."""
    topic, _ = filled(env)
    for ask, stamp, offset in ((-5, 0, 0), (0, 0, 0), (1, 10, 1), (10, 10, 1), (11, 20, 2), (21, 50, 3), (35, 50, 3), (50, 50, 3),
                               (51, 60, 6), (61, 61, 7), (62, 62, 8)):
        equal(env.cluster.offset(topic, 0, T0 + ask), (0, T0 + stamp, offset), f"T0{ask:+}")
    equal(env.cluster.offset(topic, 0, T0 + 63), (0, -1, -1), "behind the last")


@test
def by_time_in_a_compressed_batch(env):
    topic = env.topic(configs={"retention.ms": "-1"})
    c = env.leader(topic)
    produce(c, topic, 0, batch.build([Record(b"v", b"k", T0 + s) for s in range(0, 1000, 10)], codec="gzip"))
    for ask, offset in ((0, 0), (1, 1), (495, 50), (500, 50), (990, 99)):
        equal(env.cluster.offset(topic, 0, T0 + ask)[2], offset, f"T0+{ask}")


@test
def by_time_over_many_batches(env):
    topic = env.topic(configs={"retention.ms": "-1"})
    c = env.leader(topic)
    for i in range(300):
        produce(c, topic, 0, batch.build([Record(b"x" * 500, None, T0 + i * 20), Record(b"x" * 500, None, T0 + i * 20 + 10)]))
    for i in (0, 1, 2, 77, 150, 299, 431, 598, 599):
        equal(env.cluster.offset(topic, 0, T0 + i * 10), (0, T0 + i * 10, i), f"record {i}")
        equal(env.cluster.offset(topic, 0, T0 + i * 10 - 9)[2], i, f"just before record {i}")


@test
def unknown_partition_and_epoch(env):
    topic, c = filled(env)
    got = c.call(apis.LIST_OFFSETS, 5, list_offsets(topic, 9, LATEST))["topics"][0]["partitions"][0]
    equal(got["error_code"], UNKNOWN_TOPIC)
    got = c.call(apis.LIST_OFFSETS, 5, list_offsets(topic, 0, LATEST, epoch=99))["topics"][0]["partitions"][0]
    equal(got["error_code"], UNKNOWN_LEADER_EPOCH)


def delete_records(c, topic, offset, partition=0):
    got = c.call(apis.DELETE_RECORDS, 1, {"topics": [{"name": topic, "partitions": [{"index": partition, "offset": offset}]}],
                                          "timeout_ms": 5000})
    p = got["topics"][0]["partitions"][0]
    return p["error_code"], p["low_watermark"]


@test
def delete_records_moves_the_start(env):
    topic, c = filled(env)
    equal(delete_records(c, topic, 4), (0, 4), "inside a batch")
    equal(env.cluster.offset(topic, 0, EARLIEST)[2], 4, "earliest")
    equal(fetch_one(c, topic, 0, 3)["error_code"], OFFSET_OUT_OF_RANGE, "below the start")
    part = fetch_one(c, topic, 0, 4)
    equal((part["error_code"], part["log_start_offset"], batch.parse(part["records"])[0].base_offset), (0, 4, 3), "whole batch")
    equal(delete_records(c, topic, 2), (0, 4), "never back")
    equal(delete_records(c, topic, -1), (0, 9), "-1 = high watermark")
    equal(delete_records(c, topic, 10)[0], OFFSET_OUT_OF_RANGE, "beyond the end")
    equal(produce(c, topic, 0, batch.build([Record(b"v")]))["base_offset"], 9, "the log goes on")


@test
def offset_for_leader_epoch(env):
    topic, c = filled(env)
    epoch = batch.parse(fetch_one(c, topic, 0, 0)["records"])[0].leader_epoch

    def ask(e, version=3):
        got = c.call(apis.OFFSET_FOR_LEADER_EPOCH, version, {"replica_id": -1, "topics": [
            {"name": topic, "partitions": [{"index": 0, "current_leader_epoch": -1, "leader_epoch": e}]}]})
        return got["topics"][0]["partitions"][0]
    for version in (2, 3, 4):
        got = ask(epoch, version)
        equal((got["error_code"], got["leader_epoch"], got["end_offset"]), (0, epoch, 9), f"v{version}")
    got = ask(epoch + 50)
    equal((got["error_code"], got["leader_epoch"], got["end_offset"]), (0, -1, -1), "an epoch that has not been")


@test
def leader_epoch_is_told_with_the_offset(env):
    topic, c = filled(env)
    epoch = batch.parse(fetch_one(c, topic, 0, 0)["records"])[0].leader_epoch
    for ts in (EARLIEST, LATEST, T0):
        got = c.call(apis.LIST_OFFSETS, 5, list_offsets(topic, 0, ts))["topics"][0]["partitions"][0]
        equal(got["leader_epoch"], epoch, str(ts))
