"""Topics and metadata. Rules: ux.md §5.2 #15–#17, #20–#24; kafka ReplicationControlManager.java."""
import time

from . import apis, batch
from .batch import Record
from .client import produce
from .suite import equal, test
from .wire import Connection

UNKNOWN_TOPIC, LEADER_NOT_AVAILABLE, INVALID_TOPIC, TOPIC_EXISTS, INVALID_PARTITIONS = 3, 5, 17, 36, 37
INVALID_REPLICATION_FACTOR, INVALID_REPLICA_ASSIGNMENT, INVALID_CONFIG, INVALID_REQUEST = 38, 39, 40, 42
UNKNOWN_TOPIC_ID = 100


def all_of(env, version):
    """Metadata for all topics: v0 says it with an empty list, later ones with null."""
    topics = [] if version == 0 else None
    return env.cluster.call(apis.METADATA, version, request(topics))


def request(topics, auto=False):
    return {"topics": topics, "allow_auto_topic_creation": auto, "include_cluster_authorized_operations": False,
            "include_topic_authorized_operations": False}


@test
def all_topics_and_none_per_version(env):
    topic = env.topic()
    for version in range(13):
        names = [t["name"] for t in all_of(env, version)["topics"]]
        assert topic in names, f"v{version}: all topics lacks ours"
        if version > 0:
            equal(env.cluster.call(apis.METADATA, version, request([]))["topics"], [], f"v{version}: an empty list is none")


@test
def brokers_controller_and_cluster_id(env):
    for version in (1, 4, 8, 9, 12):
        got = env.cluster.call(apis.METADATA, version, request([]))
        ids = [b["node_id"] for b in got["brokers"]]
        assert ids and len(set(ids)) == len(ids) and got["controller_id"] in ids, got
        assert all(b["host"] not in ("", "0.0.0.0", "::") and b["port"] > 0 for b in got["brokers"]), got
        if version >= 2:
            assert got["cluster_id"], "cluster id is null"
    for b in got["brokers"]:  # every broker named answers, with the same list
        with Connection(b["host"], b["port"]) as c:
            again = c.call(apis.METADATA, 12, request([]))
            equal((again["brokers"], again["cluster_id"]), (got["brokers"], got["cluster_id"]), f"broker {b['node_id']}")


@test
def describe_cluster_agrees_with_metadata(env):
    want = env.cluster.metadata([])
    got = env.cluster.call(apis.DESCRIBE_CLUSTER, 0, {"include_authorized_operations": False})
    equal(got["error_code"], 0)
    equal((got["cluster_id"], sorted((b["id"], b["host"], b["port"]) for b in got["brokers"])),
          (want["cluster_id"], sorted((b["node_id"], b["host"], b["port"]) for b in want["brokers"])))


@test
def authorized_operations_only_when_asked(env):
    topic = env.topic()
    got = env.cluster.call(apis.METADATA, 8, request([{"name": topic}]))
    equal((got["cluster_authorized_operations"], got["topics"][0]["authorized_operations"]), (-(1 << 31), -(1 << 31)))


@test
def topic_ids_are_coherent(env):
    topic = env.topic()
    by_name = env.cluster.metadata([topic], version=12)["topics"][0]
    assert by_name["topic_id"] != bytes(16), "nil topic id"
    got = env.cluster.call(apis.METADATA, 12, request([{"topic_id": by_name["topic_id"], "name": None}]))["topics"][0]
    equal((got["error_code"], got["name"]), (0, topic), "by id")
    got = env.cluster.call(apis.METADATA, 12, request([{"topic_id": b"\x05" * 16, "name": None}]))["topics"][0]
    equal(got["error_code"], UNKNOWN_TOPIC_ID, "unknown id")


@test
def unknown_topic_without_auto_create(env):
    name = env.name("unknown")
    got = env.cluster.metadata([name])["topics"][0]
    equal((got["error_code"], got["partitions"]), (UNKNOWN_TOPIC, []))
    assert name not in [t["name"] for t in all_of(env, 8)["topics"]], "created all the same"


@test
def auto_create(env):
    for version, auto in ((1, False), (8, True), (12, True)):  # below v4 there is no flag: always
        name, deadline = env.name("auto"), time.monotonic() + 10
        while True:
            got = env.cluster.metadata([name], version=version, auto_create=auto)["topics"][0]
            if got["error_code"] == 0:
                break
            assert got["error_code"] in (LEADER_NOT_AVAILABLE, UNKNOWN_TOPIC) and time.monotonic() < deadline, got
            time.sleep(0.1)
        equal(len(got["partitions"]), 1, f"v{version}: num.partitions")


@test(only="pelton")
def auto_created_topic_is_there_in_the_same_answer(env):
    """Some clients do not retry LEADER_NOT_AVAILABLE (kafka-go#1208)."""
    name = env.name("auto")
    got = env.cluster.metadata([name], auto_create=True)["topics"][0]
    equal((got["error_code"], len(got["partitions"])), (0, 1))
    equal(produce(env.leader(name), name, 0, batch.build([Record(b"v")]))["error_code"], 0)


@test
def invalid_names(env):
    for name in ("", ".", "..", "a b", "a/b", "ä", "x" * 250, "a\0b", "../../etc/passwd", "a:b"):
        got = env.create(name, check=False)
        equal(got["error_code"], INVALID_TOPIC, repr(name))
        if name:
            equal(env.cluster.metadata([name], auto_create=True)["topics"][0]["error_code"], INVALID_TOPIC, f"metadata of {name!r}")
    equal(env.create("y" * 249, check=False)["error_code"] in (0, TOPIC_EXISTS), True, "249 characters are allowed")


@test
def dot_and_underscore_collide(env):
    name = env.name("c")
    env.create(name + ".x")
    equal(env.create(name + "_x", check=False)["error_code"], INVALID_TOPIC)


@test
def creating_twice(env):
    topic = env.topic()
    got = env.create(topic, check=False)
    equal(got["error_code"], TOPIC_EXISTS)
    assert got["error_message"], "no message"


@test
def bad_counts_and_factors(env):
    equal(env.create(env.name(), 0, check=False)["error_code"], INVALID_PARTITIONS, "0 partitions")
    equal(env.create(env.name(), -2, check=False)["error_code"], INVALID_PARTITIONS, "-2 partitions")
    equal(env.create(env.name(), 1, check=False, replication_factor=0)["error_code"], INVALID_REPLICATION_FACTOR, "factor 0")
    equal(env.create(env.name(), 1, check=False, replication_factor=3)["error_code"], INVALID_REPLICATION_FACTOR, "factor 3")
    got = env.create(env.name(), -1)
    equal((got["num_partitions"], got["replication_factor"]), (1, 1), "-1 is the default")


@test
def unknown_or_bad_config_at_creation(env):
    for configs in ({"no.such.config": "1"}, {"retention.ms": "soon"}, {"cleanup.policy": "shred"}, {"max.message.bytes": "-1"}):
        name = env.name()
        equal(env.create(name, configs=configs, check=False)["error_code"], INVALID_CONFIG, str(configs))
        equal(env.cluster.metadata([name])["topics"][0]["error_code"], UNKNOWN_TOPIC, "nothing is created")


@test
def validate_only_creates_nothing(env):
    name = env.name()
    equal(env.create(name, 3, validate_only=True)["error_code"], 0)
    equal(env.cluster.metadata([name])["topics"][0]["error_code"], UNKNOWN_TOPIC)


@test
def same_name_twice_in_one_request(env):
    name = env.name()
    one = {"name": name, "num_partitions": 1, "replication_factor": 1, "assignments": [], "configs": []}
    got = env.cluster.call(apis.CREATE_TOPICS, 5, {"topics": [one, one], "timeout_ms": 5000, "validate_only": False})
    equal({t["error_code"] for t in got["topics"]}, {INVALID_REQUEST})


@test
def every_create_version_is_served(env):
    for version in range(2, 8):
        got = env.create(env.name(), 2, version=version)
        equal(got["error_code"], 0, f"v{version}")
        if version >= 7:
            assert got["topic_id"] != bytes(16), "nil topic id"


@test
def manual_assignment(env):
    brokers = [b["node_id"] for b in env.cluster.metadata([])["brokers"]]

    def create(assignments):
        got = env.cluster.call(apis.CREATE_TOPICS, 5, {"topics": [{
            "name": env.name(), "num_partitions": -1, "replication_factor": -1, "configs": [],
            "assignments": [{"index": i, "brokers": b} for i, b in assignments]}], "timeout_ms": 5000, "validate_only": False})
        return got["topics"][0]["error_code"]
    equal(create([(0, [brokers[0]]), (1, [brokers[-1]])]), 0, "on known brokers")
    equal(create([(0, [9999])]), INVALID_REPLICA_ASSIGNMENT, "on an unknown broker")
    equal(create([(0, [brokers[0]]), (2, [brokers[0]])]), INVALID_REPLICA_ASSIGNMENT, "with a gap")


@test(only="pelton")
def leaders_serve_when_create_returns(env):
    """redpanda#411: no wait, no retry, any broker."""
    for i in range(20):
        name = env.name()
        env.create(name, 4)
        for p in range(4):
            c = env.leader(name, p)
            equal(produce(c, name, p, batch.build([Record(b"v")]))["error_code"], 0, f"topic {i} partition {p}")
            c.close()


@test
def delete_topic(env):
    for version in (1, 3, 4, 5, 6):
        name = env.topic()
        values = {"names": [name], "topics": [{"name": name, "topic_id": bytes(16)}], "timeout_ms": 10000}
        got = env.cluster.call(apis.DELETE_TOPICS, version, values)["topics"][0]
        equal(got["error_code"], 0, f"v{version}")
        deadline = time.monotonic() + 5
        while env.cluster.metadata([name])["topics"][0]["error_code"] != UNKNOWN_TOPIC:
            assert time.monotonic() < deadline, f"v{version}: still there"
            time.sleep(0.05)
        got = env.cluster.call(apis.DELETE_TOPICS, version, values)["topics"][0]
        equal(got["error_code"], UNKNOWN_TOPIC, f"v{version}: again")


@test
def a_new_topic_of_an_old_name_is_empty(env):
    name = env.topic()
    produce(env.leader(name), name, 0, batch.build([Record(b"old")]))
    first = env.cluster.metadata([name], version=12)["topics"][0]["topic_id"]
    env.cluster.call(apis.DELETE_TOPICS, 4, {"names": [name], "timeout_ms": 10000})
    deadline = time.monotonic() + 10
    while env.create(name, check=False)["error_code"] != 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    while (got := env.cluster.offset(name, 0, -1))[0]:
        assert time.monotonic() < deadline, got
        time.sleep(0.1)
    equal(got[2], 0, "end offset")
    assert env.cluster.metadata([name], version=12)["topics"][0]["topic_id"] != first, "same topic id"


@test
def create_partitions(env):
    topic = env.topic()

    def grow(count, version=1, name=topic):
        got = env.cluster.call(apis.CREATE_PARTITIONS, version, {"topics": [{"name": name, "count": count, "assignments": None}],
                                                                 "timeout_ms": 10000, "validate_only": False})
        return got["results"][0]["error_code"]
    equal(grow(4), 0, "1 to 4")
    equal(grow(4), INVALID_PARTITIONS, "the same count")
    equal(grow(2), INVALID_PARTITIONS, "fewer")
    equal(grow(2, name=env.name("none")), UNKNOWN_TOPIC, "unknown topic")
    equal([grow(5, 0), grow(6, 2), grow(7, 3)], [0, 0, 0], "every version")
    deadline = time.monotonic() + 5
    while len(env.cluster.metadata([topic])["topics"][0]["partitions"]) != 7:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for p in range(7):
        while (code := produce(env.leader(topic, p), topic, p, batch.build([Record(b"v")]))["error_code"]) and env.kind != "pelton":
            assert time.monotonic() < deadline
        equal(code, 0, f"partition {p}")
