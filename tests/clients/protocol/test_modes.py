"""Pelton's listener modes: direct (every shard a broker with its own port) and single (one port for all). DESIGN.md §4."""
from . import apis, batch
from .batch import Record
from .client import LATEST, fetch_one, fetch_request, list_offsets, produce, produce_request
from .suite import equal, test
from .wire import Connection

NOT_LEADER = 6


def spread(env, partitions=8):
    """A topic with partitions on several brokers, and {partition: leader's node id}."""
    topic = env.topic(partitions)
    return topic, {p["index"]: p["leader_id"] for p in env.cluster.metadata([topic])["topics"][0]["partitions"]}


@test(only="pelton")
def broker_list_fits_the_mode(env):
    got = env.cluster.metadata([])["brokers"]
    shards = env.broker.shards if env.broker.mode == "direct" else 1
    equal(sorted(b["port"] for b in got), [env.broker.port + i for i in range(shards)])


@test(only="pelton")
def partitions_spread_over_the_shards(env):
    if env.broker.mode != "direct":
        return
    _, leaders = spread(env)
    equal(len(set(leaders.values())), env.broker.shards, "shards that lead")


@test(only="pelton")
def direct_wrong_broker_is_not_leader_with_a_hint(env):
    if env.broker.mode != "direct" or env.broker.shards < 2:
        return
    topic, leaders = spread(env)
    for b in env.cluster.metadata([])["brokers"]:
        partition = next(p for p, leader in leaders.items() if leader != b["node_id"])
        with Connection(b["host"], b["port"]) as c:
            data = batch.build([Record(b"v")])
            equal(produce(c, topic, partition, data)["error_code"], NOT_LEADER, "produce")
            part = fetch_one(c, topic, partition, 0)
            equal((part["error_code"], part["records"]), (NOT_LEADER, b""), "fetch")
            got = c.call(apis.LIST_OFFSETS, 5, list_offsets(topic, partition, LATEST))["topics"][0]["partitions"][0]
            equal(got["error_code"], NOT_LEADER, "list offsets")
            got = c.call(apis.PRODUCE, 10, produce_request(topic, partition, data))
            assert 0 in got["topics"][0]["partitions"][0].get("_tags", {}), "Produce v10: no CurrentLeader (KIP-951)"
            assert 0 in got.get("_tags", {}), "Produce v10: no NodeEndpoints (KIP-951)"


@test(only="pelton")
def single_serves_every_partition_from_one_connection(env):
    if env.broker.mode != "single":
        return
    topic, _ = spread(env)
    c = env.connect()
    for p in range(8):
        equal(produce(c, topic, p, batch.build([Record(f"{p}".encode())]))["error_code"], 0, f"produce to {p}")
    got = c.call(apis.FETCH, 11, fetch_request([(topic, p, 0, 1000) for p in range(8)], max_wait_ms=500))
    parts = got["topics"][0]["partitions"]
    equal([p["index"] for p in parts], list(range(8)), "partitions in the order asked for")
    values = [batch.records(batch.parse(p["records"])[0])[0].value for p in parts]
    equal(values, [f"{p}".encode() for p in range(8)], "contents")


@test(only="pelton")
def one_request_for_partitions_of_many_shards(env):
    """Single mode: one Produce request names all shards; every partition is answered, in order."""
    if env.broker.mode != "single":
        return
    topic, _ = spread(env)
    c = env.connect()
    request = produce_request(topic, 0, batch.build([Record(b"v")]))
    request["topics"][0]["partitions"] = [{"index": p, "records": batch.build([Record(b"v")])} for p in range(8)]
    sent = [c.send(apis.PRODUCE, 8, request) for _ in range(30)]
    for i, correlation in enumerate(sent):
        got = c.receive(apis.PRODUCE, 8, correlation)["topics"][0]["partitions"]
        equal([(p["index"], p["error_code"], p["base_offset"]) for p in got], [(p, 0, i) for p in range(8)], f"request {i}")
