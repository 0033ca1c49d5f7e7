"""DescribeConfigs and IncrementalAlterConfigs. Rules: ux.md §5.2 #42, #43; kafka ConfigAdminManager.scala."""
import time

from . import apis, batch
from .batch import Record
from .client import produce
from .suite import equal, test
from .wire import Connection

UNKNOWN_TOPIC, MESSAGE_TOO_LARGE, INVALID_TOPIC, INVALID_CONFIG, INVALID_REQUEST = 3, 10, 17, 40, 42
TOPIC, BROKER, GROUP = 2, 4, 32
DYNAMIC_TOPIC, STATIC_BROKER, DEFAULT = 1, 4, 5
SET, DELETE, APPEND, SUBTRACT = 0, 1, 2, 3


def describe(env, kind, name, keys=None, version=3, synonyms=True, documentation=False):
    got = env.cluster.call(apis.DESCRIBE_CONFIGS, version, {
        "resources": [{"type": kind, "name": name, "keys": keys}], "include_synonyms": synonyms,
        "include_documentation": documentation})
    return got["results"][0]


def named(answer):
    return {c["name"]: c for c in answer["configs"]}


def settled(env, topic, key, value):
    """Kafka shows an altered config a moment after its answer; Pelton must at once."""
    deadline = time.monotonic() + (0 if env.kind == "pelton" else 5)
    while (got := named(describe(env, TOPIC, topic))[key])["value"] != value and time.monotonic() < deadline:
        time.sleep(0.05)
    equal(got["value"], value, key)
    return got


def alter(env, kind, name, changes, validate_only=False, version=0):
    got = env.cluster.call(apis.INCREMENTAL_ALTER_CONFIGS, version, {
        "resources": [{"type": kind, "name": name, "configs": [{"name": n, "operation": o, "value": v} for n, o, v in changes]}],
        "validate_only": validate_only})
    return got["responses"][0]["error_code"]


def known(env, configs=None):
    topic = env.topic(configs=configs)
    deadline = time.monotonic() + 5
    while describe(env, TOPIC, topic)["error_code"] and env.kind != "pelton" and time.monotonic() < deadline:
        time.sleep(0.05)
    return topic


@test
def null_and_empty_are_all(env):
    """Kafka 4.3.1 answers an empty list of names with everything, like null, at every version (ux.md §5.2 #42 says 'none')."""
    topic = known(env)
    for version in (1, 2, 3, 4):
        got = describe(env, TOPIC, topic, None, version)
        equal(got["error_code"], 0)
        assert len(got["configs"]) >= 20, f"v{version}: only {len(got['configs'])} configs"
        equal(sorted(named(describe(env, TOPIC, topic, [], version))), sorted(named(got)), f"v{version}: empty list")
        equal(sorted(named(describe(env, TOPIC, topic, ["retention.ms", "cleanup.policy", "nope"], version))),
              ["cleanup.policy", "retention.ms"], f"v{version}: two names")


@test
def every_config_has_value_source_and_type(env):
    """Schema Registry crashes and Connect refuses to start without (redpanda#591)."""
    topic = known(env, {"retention.ms": "7777"})
    got = named(describe(env, TOPIC, topic, documentation=True))
    for name, c in got.items():
        assert c["value"] is not None, f"{name} has no value"
        assert 1 <= c["source"] <= 8, f"{name}: source {c['source']}"
        assert c["config_type"] > 0, f"{name}: type 0"
        assert c["documentation"], f"{name} has no documentation"
        equal((c["read_only"], c["sensitive"]), (False, False), name)
    for name, value in {"cleanup.policy": "delete", "compression.type": "producer", "max.message.bytes": "1048588",
                        "message.timestamp.type": "CreateTime", "min.insync.replicas": "1", "segment.bytes": "1073741824"}.items():
        equal(got[name]["value"], value, name)
    equal((got["retention.ms"]["value"], got["retention.ms"]["source"]), ("7777", DYNAMIC_TOPIC))
    equal(got["segment.ms"]["source"], DEFAULT)
    equal(got["retention.ms"]["synonyms"][0], {"name": "retention.ms", "value": "7777", "source": DYNAMIC_TOPIC}, "synonyms")


@test(only="pelton")
def flush_messages_is_1(env):
    """Our promise: an acknowledged record is on stable storage."""
    equal(named(describe(env, TOPIC, known(env)))["flush.messages"]["value"], "1")


@test
def unknown_and_invalid_topic(env):
    equal(describe(env, TOPIC, env.name("none"))["error_code"], UNKNOWN_TOPIC)
    equal(describe(env, TOPIC, "a/b")["error_code"], INVALID_TOPIC)


@test
def broker_configs(env):
    for b in env.cluster.metadata([])["brokers"]:
        with Connection(b["host"], b["port"]) as c:
            got = c.call(apis.DESCRIBE_CONFIGS, 3, {"resources": [{"type": BROKER, "name": str(b["node_id"]), "keys": None}],
                                                    "include_synonyms": True, "include_documentation": False})["results"][0]
            equal(got["error_code"], 0)
            found = {x["name"]: x for x in got["configs"]}
            for name in ("num.partitions", "default.replication.factor", "auto.create.topics.enable"):
                assert name in found and found[name]["value"], f"{name} is missing"


@test
def brokers_say_where_they_are(env):
    """kafka-python's own test of DescribeConfigs reads advertised.listeners of a broker."""
    for b in env.cluster.metadata([])["brokers"]:
        got = named(describe(env, BROKER, str(b["node_id"])))["advertised.listeners"]
        equal((got["value"].split("//")[-1], got["source"], got["read_only"]), (f"{b['host']}:{b['port']}", STATIC_BROKER, True))
        only = named(describe(env, BROKER, str(b["node_id"]), ["advertised.listeners"]))
        equal(list(only), ["advertised.listeners"])


@test
def a_group_has_the_brokers_settings(env):
    """Kafka 4.3 describes any group, whether there is one or not; librdkafka's 0081 asks."""
    got = named(describe(env, GROUP, env.name("group")))
    broker = env.cluster.metadata([])["brokers"][0]
    with Connection(broker["host"], broker["port"]) as c:
        own = named(c.call(apis.DESCRIBE_CONFIGS, 3, {"resources": [{"type": BROKER, "name": str(broker["node_id"]), "keys": None}],
                                                      "include_synonyms": False, "include_documentation": False})["results"][0])
    for name in ("consumer.heartbeat.interval.ms", "consumer.session.timeout.ms"):
        value = own[f"group.{name}"]["value"]
        equal((got[name]["value"], got[name]["source"], got[name]["read_only"], got[name]["synonyms"]), (value, DEFAULT, False, []))
    equal(list(named(describe(env, GROUP, "g", ["consumer.session.timeout.ms"]))), ["consumer.session.timeout.ms"])
    equal(describe(env, GROUP, "")["error_code"], INVALID_REQUEST)


@test
def set_and_delete(env):
    topic = known(env)
    for version in (0, 1):
        equal(alter(env, TOPIC, topic, [("retention.ms", SET, "12345")], version=version), 0)
        equal(settled(env, topic, "retention.ms", "12345")["source"], DYNAMIC_TOPIC)
        equal(alter(env, TOPIC, topic, [("retention.ms", DELETE, None)], version=version), 0)
        equal(settled(env, topic, "retention.ms", "604800000")["source"], DEFAULT)


@test
def append_and_subtract(env):
    topic = known(env)
    equal(alter(env, TOPIC, topic, [("cleanup.policy", APPEND, "compact")]), 0)
    settled(env, topic, "cleanup.policy", "delete,compact")
    equal(alter(env, TOPIC, topic, [("cleanup.policy", SUBTRACT, "delete")]), 0)
    settled(env, topic, "cleanup.policy", "compact")
    assert alter(env, TOPIC, topic, [("retention.ms", APPEND, "1")]) in (INVALID_CONFIG, INVALID_REQUEST), "append to a number"


@test
def bad_alterations_change_nothing(env):
    topic = known(env)
    equal(alter(env, TOPIC, topic, [("no.such.config", SET, "1")]), INVALID_CONFIG, "unknown name")
    equal(alter(env, TOPIC, topic, [("retention.ms", SET, "soon")]), INVALID_CONFIG, "no number")
    equal(alter(env, TOPIC, topic, [("segment.ms", SET, "99999"), ("retention.ms", SET, "x")]), INVALID_CONFIG, "one of two")
    equal(alter(env, TOPIC, topic, [("retention.ms", SET, "1"), ("retention.ms", SET, "2")]), INVALID_REQUEST, "twice")
    equal(alter(env, TOPIC, env.name("none"), [("retention.ms", SET, "1")]), UNKNOWN_TOPIC, "unknown topic")
    got = named(describe(env, TOPIC, topic))
    equal((got["retention.ms"]["source"], got["segment.ms"]["source"]), (DEFAULT, DEFAULT), "unchanged")


@test
def validate_only_changes_nothing(env):
    topic = known(env)
    equal(alter(env, TOPIC, topic, [("retention.ms", SET, "1234")], validate_only=True), 0)
    equal(named(describe(env, TOPIC, topic))["retention.ms"]["source"], DEFAULT)


@test
def an_altered_limit_is_enforced(env):
    topic = known(env)
    data = batch.build([Record(b"x" * 3000)])
    equal(produce(env.leader(topic), topic, 0, data)["error_code"], 0)
    equal(alter(env, TOPIC, topic, [("max.message.bytes", SET, "2000")]), 0)
    settled(env, topic, "max.message.bytes", "2000")
    equal(produce(env.leader(topic), topic, 0, data)["error_code"], MESSAGE_TOO_LARGE)
