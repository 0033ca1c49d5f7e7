"""Requests of those who look after a cluster, against one broker. Rules: kafka ReplicationControlManager.java, ReplicaManager.scala,
KafkaRaftClient.java; KIP-113, 455, 460, 595, 664, 827, 853, 1073. What needs several nodes is not here."""
import os

from . import apis, batch
from .batch import Record
from .client import produce
from .suite import equal, test
from .test_idempotence import Producer
from .wire import Connection

UNKNOWN_TOPIC, INVALID_REPLICA_ASSIGNMENT, INVALID_REPLICATION_FACTOR, LOG_DIR_NOT_FOUND = 3, 39, 38, 57
INVALID_REQUEST, ELECTION_NOT_NEEDED, NO_REASSIGNMENT, NOT_REGISTERED = 42, 84, 85, 102
PREFERRED, UNCLEAN = 0, 1


def quorum(env, version=2, topic="__cluster_metadata", partition=0):
    return env.cluster.call(apis.DESCRIBE_QUORUM, version, {"topics": [{"name": topic, "partitions": [{"index": partition}]}]})


@test
def describe_quorum_of_one(env):
    for version in (0, 1, 2):
        got = quorum(env, version)
        equal(got["error_code"], 0)
        part = got["topics"][0]["partitions"][0]
        equal((got["topics"][0]["name"], part["index"], part["error_code"]), ("__cluster_metadata", 0, 0))
        equal((len(part["voters"]), part["observers"]), (1, []), f"v{version}: members")
        voter = part["voters"][0]
        equal(voter["id"], part["leader_id"], "the only voter leads")
        assert part["leader_epoch"] >= 1 and voter["log_end_offset"] >= part["high_watermark"] > 0, part
        if version >= 2:
            assert any(voter["directory_id"]), "no directory id"
            equal([n["id"] for n in got["nodes"]], [voter["id"]])
            assert all(li["name"] and li["host"] and li["port"] for n in got["nodes"] for li in n["listeners"]), got["nodes"]
    before = quorum(env)["topics"][0]["partitions"][0]
    env.topic()
    after = quorum(env)["topics"][0]["partitions"][0]
    assert after["high_watermark"] > before["high_watermark"], "a new topic is a change of metadata"
    assert after["voters"][0]["last_caught_up_ms"] >= before["voters"][0]["last_caught_up_ms"] > 1_700_000_000_000


@test
def describe_quorum_of_another_topic(env):
    for topic, partition in (("orders", 0), ("__cluster_metadata", 1)):
        got = quorum(env, 2, topic, partition)["topics"][0]
        equal((got["name"], got["partitions"][0]["index"], got["partitions"][0]["error_code"]), (topic, partition, UNKNOWN_TOPIC))


def log_dirs(env, topics, version=4, address=None):
    with Connection(*(address or (env.cluster.host, env.cluster.port))) as c:
        got = c.call(apis.DESCRIBE_LOG_DIRS, version, {"topics": topics})
    if version >= 3:
        equal(got["error_code"], 0)
    for d in got["results"]:
        equal((d["error_code"], os.path.isabs(d["log_dir"])), (0, True), "log dir")
        # No directory is listed with topics that have nothing there.
        assert all(t["partitions"] for t in d["topics"]), d
    return got["results"]


@test
def log_dirs_grow_with_what_is_produced(env):
    topic, payload = env.topic(), os.urandom(50_000)
    c, address = env.leader(topic), env.cluster.address(topic, 0)

    def size(version):
        found = [(p["size"], p["offset_lag"], p["is_future"]) for d in log_dirs(env, [{"name": topic, "partitions": [0]}], version, address)
                 for t in d["topics"] for p in t["partitions"] if (t["name"], p["index"]) == (topic, 0)]
        equal(len(found), 1, "each log is in one directory")
        equal(found[0][1:], (0, False), "lag, future")
        return found[0][0]

    for version in (1, 2, 3, 4):
        before = size(version)
        equal(produce(c, topic, 0, batch.build([Record(payload)]))["error_code"], 0)
        grown = size(version) - before
        assert 50_000 <= grown <= 51_000, f"v{version}: grew by {grown} bytes"


@test
def log_dirs_of_all_and_of_none(env):
    topic = env.topic(3)
    found = []
    for b in env.cluster.metadata([])["brokers"]:
        address = (b["host"], b["port"])
        found += [p["index"] for d in log_dirs(env, None, 4, address) for t in d["topics"] if t["name"] == topic for p in t["partitions"]]
        equal([d["topics"] for d in log_dirs(env, [], 4, address)], [[] for _ in log_dirs(env, None, 4, address)], "none asked for")
        equal([t for d in log_dirs(env, [{"name": env.name("unknown"), "partitions": [0]}], 4, address) for t in d["topics"]], [], "unknown")
    equal(sorted(found), [0, 1, 2], "every partition once")


@test(only="pelton")
def a_log_dir_for_each_shard(env):
    want = env.broker.shards if env.broker.mode == "single" else 1
    names = [d["log_dir"] for d in log_dirs(env, None)]
    equal((len(names), len(set(names))), (want, want))


def move(env, address, path, topic, partitions, version=2):
    """What becomes of moving replicas of a broker to a log directory: partition and error code."""
    with Connection(*address) as c:
        got = c.call(apis.ALTER_REPLICA_LOG_DIRS, version, {"dirs": [{"path": path, "topics": [{"name": topic, "partitions": partitions}]}]})
    equal([r["topic"] for r in got["results"]], [topic])
    return [(p["index"], p["error_code"]) for p in got["results"][0]["partitions"]]


@test
def a_replica_moves_to_where_it_is(env):
    topic = env.topic()
    address = env.cluster.address(topic, 0)
    path = next(d["log_dir"] for d in log_dirs(env, [{"name": topic, "partitions": [0]}], 4, address) for t in d["topics"] if t["partitions"])
    for version in (1, 2):
        equal(move(env, address, path, topic, [0], version), [(0, 0)], f"v{version}")
    equal(move(env, address, path, topic, [7]), [(7, UNKNOWN_TOPIC)], "no such partition")
    equal(move(env, address, path, env.name("unknown"), [0]), [(0, UNKNOWN_TOPIC)], "no such topic")
    equal(move(env, address, "/nowhere", topic, [0]), [(0, LOG_DIR_NOT_FOUND)], "no such directory")


@test
def log_dirs_know_the_size_of_their_volume(env):
    for d in log_dirs(env, None):
        assert d["total_bytes"] >= d["usable_bytes"] > 0, d


def elect(env, kind, topics, version=2):
    got = env.cluster.call(apis.ELECT_LEADERS, version, {"type": kind, "topics": topics, "timeout_ms": 5000})
    return got.get("error_code", 0), [(t["name"], p["index"], p["error_code"], p["error_message"]) for t in got["results"] for p in t["partitions"]]


@test
def elections_that_are_not_needed(env):
    topic = env.topic(2)
    for version in (0, 1, 2):
        for kind in (PREFERRED, UNCLEAN) if version else (PREFERRED,):
            error, results = elect(env, kind, [{"name": topic, "partitions": [0, 1]}], version)
            want = [(topic, p, ELECTION_NOT_NEEDED, "Leader election not needed for topic partition.") for p in (0, 1)]
            equal((error, sorted(results)), (0, want), f"v{version} type {kind}")
    equal(elect(env, PREFERRED, None), (0, []), "of all, those that need it")


@test
def elections_of_what_does_not_exist(env):
    topic, unknown = env.topic(), env.name("unknown")
    equal(elect(env, PREFERRED, [{"name": topic, "partitions": [7]}]), (0, [(topic, 7, UNKNOWN_TOPIC, f"No such partition as {topic}-7")]))
    equal(elect(env, UNCLEAN, [{"name": unknown, "partitions": [0]}]), (0, [(unknown, 0, UNKNOWN_TOPIC, f"No such topic as {unknown}")]))


def reassign(env, topic, partition, replicas, allow=True, version=0):
    values = {"timeout_ms": 5000, "allow_factor_change": allow,
              "topics": [{"name": topic, "partitions": [{"index": partition, "replicas": replicas}]}]}
    got = env.cluster.call(apis.ALTER_PARTITION_REASSIGNMENTS, version, values)
    equal(got["error_code"], 0)
    p = got["topics"][0]["partitions"][0]
    equal((got["topics"][0]["name"], p["index"]), (topic, partition))
    return p["error_code"], p["error_message"]


@test
def reassignments_that_change_nothing_or_cannot_be(env):
    topic, unknown = env.topic(), env.name("unknown")
    replicas = env.cluster.metadata([topic])["topics"][0]["partitions"][0]["replicas"]
    equal(reassign(env, topic, 0, replicas), (0, None), "as it is")
    equal(reassign(env, topic, 0, None), (NO_REASSIGNMENT, None), "nothing to cancel")
    prefix = "The manual partition assignment includes"
    equal(reassign(env, topic, 0, []), (INVALID_REPLICA_ASSIGNMENT, f"{prefix} an empty replica list."))
    equal(reassign(env, topic, 0, [replicas[0], 9999]),
          (INVALID_REPLICA_ASSIGNMENT, f"{prefix} broker 9999, but no such broker is registered."))
    equal(reassign(env, topic, 0, [replicas[0]] * 2), (INVALID_REPLICA_ASSIGNMENT, f"{prefix} the broker {replicas[0]} more than once."))
    equal(reassign(env, topic, 5, replicas), (UNKNOWN_TOPIC, f"Unable to find partition {topic}:5."))
    equal(reassign(env, unknown, 0, replicas), (UNKNOWN_TOPIC, f"Unable to find a topic named {unknown}."))
    after = env.cluster.metadata([topic])["topics"][0]["partitions"][0]
    equal((after["replicas"], after["isr"]), (replicas, replicas))


@test
def no_reassignments_are_listed(env):
    topic = env.topic()
    for topics in (None, [], [{"name": topic, "partitions": [0, 9]}], [{"name": env.name("unknown"), "partitions": [0]}]):
        got = env.cluster.call(apis.LIST_PARTITION_REASSIGNMENTS, 0, {"timeout_ms": 5000, "topics": topics})
        equal((got["error_code"], got["topics"]), (0, []))


@test
def producers_are_described(env):
    p = Producer(env, 2)
    other = Producer(env)
    for sequence, count in ((0, 1), (1, 4)):
        equal(p.send(sequence, count)[0], 0)
    # A producer's last batch is at this time, whatever the broker's clock says.
    stamped = batch.build([Record(b"v", timestamp=1_600_000_000_123)], other.id, other.epoch, 0)
    equal(produce(p.connection, p.topic, 0, stamped)["error_code"], 0)
    wanted = [{"name": p.topic, "partitions": [0, 7]}, {"name": env.name("unknown"), "partitions": [0]}]
    got = p.connection.call(apis.DESCRIBE_PRODUCERS, 0, {"topics": wanted})["topics"]
    parts = {(t["name"], x["index"]): x for t in got for x in t["partitions"]}
    equal({k: x["error_code"] for k, x in parts.items()}, {(p.topic, 0): 0, (p.topic, 7): UNKNOWN_TOPIC, (wanted[1]["name"], 0): UNKNOWN_TOPIC})
    found = {x["producer_id"]: (x["producer_epoch"], x["last_sequence"], x["last_timestamp_ms"], x["transaction_start"])
             for x in parts[p.topic, 0]["producers"]}
    equal(found, {p.id: (p.epoch, 4, 1_700_000_000_000, -1), other.id: (other.epoch, 0, 1_600_000_000_123, -1)})


@test
def unknown_brokers_cannot_be_unregistered(env):
    got = env.cluster.call(apis.UNREGISTER_BROKER, 0, {"broker_id": 4242})
    equal((got["error_code"], got["error_message"]), (NOT_REGISTERED, "Broker ID 4242 is not currently registered"))


@test(only="pelton")
def a_living_broker_is_not_unregistered(env):
    before = env.cluster.metadata([])["brokers"]
    got = env.cluster.call(apis.UNREGISTER_BROKER, 0, {"broker_id": before[0]["node_id"]})
    equal(got["error_code"], INVALID_REQUEST)
    equal(env.cluster.metadata([])["brokers"], before)


@test
def describe_cluster_with_fenced_brokers(env):
    want = sorted(b["node_id"] for b in env.cluster.metadata([])["brokers"])
    for fenced in (False, True):
        got = env.cluster.call(apis.DESCRIBE_CLUSTER, 2, {
            "include_authorized_operations": False, "endpoint_type": 1, "include_fenced": fenced})
        equal((got["error_code"], sorted((b["id"], b["fenced"]) for b in got["brokers"])), (0, [(i, False) for i in want]))


@test
def settings_that_nobody_knows_are_not_set(env):
    """kafka-reassign-partitions takes throttles back without a look at whether there are any."""
    topic, broker, delete = env.topic(), str(env.cluster.metadata([])["brokers"][0]["node_id"]), 1
    for kind, name, config in ((2, topic, "no.such.config"), (4, broker, "leader.replication.throttled.rate")):
        resource = {"type": kind, "name": name, "configs": [{"name": config, "operation": delete, "value": None}]}
        got = env.cluster.call(apis.INCREMENTAL_ALTER_CONFIGS, 1, {"resources": [resource], "validate_only": False})
        equal(got["responses"][0]["error_code"], 0, f"{config}: {got}")


@test(only="pelton")
def a_single_node_has_one_voter(env):
    """Kafka says so of a cluster without dynamic voters; what voters do in a cluster needs one."""
    part = quorum(env)["topics"][0]["partitions"][0]
    voter = {"voter_id": part["leader_id"], "directory_id": part["voters"][0]["directory_id"]}
    add = {**voter, "timeout_ms": 1000, "listeners": [], "ack_when_committed": True}
    for cluster_id, error in ((None, 35), ("AAAAAAAAAAAAAAAAAAAAAA", 104)):
        equal(env.cluster.call(apis.ADD_RAFT_VOTER, 1, {**add, "cluster_id": cluster_id})["error_code"], error)
        equal(env.cluster.call(apis.REMOVE_RAFT_VOTER, 0, {**voter, "cluster_id": cluster_id})["error_code"], error)
