"""DescribeConfigs and IncrementalAlterConfigs. Rules: ux.md §5.2 #42, #43; kafka ConfigAdminManager.scala."""
import time

from . import apis, batch, group_apis
from .batch import Record
from .client import produce
from .groups import coordinator
from .suite import equal, test
from .wire import Connection

UNKNOWN_TOPIC, MESSAGE_TOO_LARGE, INVALID_TOPIC, INVALID_CONFIG, INVALID_REQUEST = 3, 10, 17, 40, 42
UNSUPPORTED_VERSION = 35
TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32
DYNAMIC_TOPIC, STATIC_BROKER, DEFAULT, DYNAMIC_GROUP = 1, 4, 5, 8
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


def of_broker(env):
    broker = env.cluster.metadata([])["brokers"][0]
    with Connection(broker["host"], broker["port"]) as c:
        return named(c.call(apis.DESCRIBE_CONFIGS, 3, {
            "resources": [{"type": BROKER, "name": str(broker["node_id"]), "keys": None}],
            "include_synonyms": True, "include_documentation": False})["results"][0])


@test
def a_group_has_the_brokers_settings(env):
    """Kafka 4.3 describes any group, whether there is one or not; librdkafka's 0081 asks."""
    got, own = named(describe(env, GROUP, env.name("group"))), of_broker(env)
    for name in ("consumer.heartbeat.interval.ms", "consumer.session.timeout.ms", "consumer.assignment.interval.ms"):
        want = own[f"group.{name}"]
        equal((got[name]["value"], got[name]["source"], got[name]["read_only"]), (want["value"], want["source"], False))
        equal(got[name]["synonyms"], want["synonyms"])
    equal(list(named(describe(env, GROUP, "g", ["consumer.session.timeout.ms"]))), ["consumer.session.timeout.ms"])
    equal(describe(env, GROUP, "")["error_code"], INVALID_REQUEST)


def group_settled(env, group, key, value):
    deadline = time.monotonic() + (0 if env.kind == "pelton" else 5)
    while (got := named(describe(env, GROUP, group))[key])["value"] != value and time.monotonic() < deadline:
        time.sleep(0.05)
    equal(got["value"], value, key)
    return got


@test
def a_group_can_have_settings_of_its_own(env):
    """KIP-848: consumer.session.timeout.ms and consumer.heartbeat.interval.ms of one group, which its members are told."""
    group, session, interval = env.name("group"), "consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"
    topic = env.topic()
    equal(alter(env, GROUP, group, [(session, SET, "50000"), (interval, SET, "6000")]), 0)
    got = group_settled(env, group, interval, "6000")
    broker = of_broker(env)
    own = {"name": interval, "value": "6000", "source": DYNAMIC_GROUP}
    equal((got["source"], got["synonyms"], got["read_only"]), (DYNAMIC_GROUP, [own, *broker[f"group.{interval}"]["synonyms"]], False))
    equal(group_settled(env, group, session, "50000")["source"], DYNAMIC_GROUP)
    c = coordinator(env, group)

    def told():
        answer = c.call(group_apis.CONSUMER_GROUP_HEARTBEAT, 1, {
            "group": group, "member": "one", "member_epoch": 0, "instance": None, "rack": None, "rebalance_timeout_ms": 60000,
            "names": [topic], "regex": None, "assignor": None, "owned": []})
        equal(answer["error_code"], 0)
        return answer["heartbeat_interval_ms"]
    equal(told(), 6000)
    equal(alter(env, GROUP, group, [(interval, DELETE, None)]), 0)
    usual = broker[f"group.{interval}"]
    equal(group_settled(env, group, interval, usual["value"])["source"], usual["source"])
    equal(told(), int(usual["value"]))
    equal(alter(env, GROUP, group, [(session, DELETE, None)], version=1), 0)
    group_settled(env, group, session, broker[f"group.{session}"]["value"])


@test
def settings_of_groups_are_checked(env):
    group, session, interval = env.name("group"), "consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"
    broker = of_broker(env)

    def beyond(name, which, by):
        return (f"consumer.{name}", SET, str(int(broker[f"group.consumer.{which}.{name}"]["value"]) + by))
    for what, changes in {
        "unknown": [("no.such.config", SET, "1")], "a topic's": [("retention.ms", SET, "1")], "no number": [(session, SET, "long")],
        "too short": [beyond("session.timeout.ms", "min", -1)], "too long": [beyond("session.timeout.ms", "max", 1)],
        "too often": [beyond("heartbeat.interval.ms", "min", -1)], "too rare": [beyond("heartbeat.interval.ms", "max", 1)], "one of two": [(interval, SET, "6000"), (session, SET, "1")],
        "assignments too rare": [beyond("assignment.interval.ms", "max", 1)],
    }.items():
        equal(alter(env, GROUP, group, changes), INVALID_CONFIG, what)
    equal(alter(env, GROUP, "", [(session, SET, "50000")]), INVALID_REQUEST, "no name")
    equal(alter(env, GROUP, group, [(session, SET, "50000")], validate_only=True), 0)
    got = named(describe(env, GROUP, group))
    assert all(got[name]["source"] != DYNAMIC_GROUP for name in (session, interval, "consumer.assignment.interval.ms")), "unchanged"


@test
def resources_with_settings_are_listed(env):
    """KIP-1142. A group is listed while it has settings of its own."""
    topic, group = env.topic(), env.name("group")

    def listed(types, version=1):
        got = env.cluster.call(apis.LIST_CONFIG_RESOURCES, version, {"types": types})
        return got["error_code"], [(r["name"], r.get("type")) for r in got["resources"]]

    def settle(want):
        deadline = time.monotonic() + (0 if env.kind == "pelton" else 5)
        while ((group, GROUP) in listed([GROUP])[1]) != want and time.monotonic() < deadline:
            time.sleep(0.05)
        equal((group, GROUP) in listed([GROUP])[1], want, "listed")
    settle(False)
    equal(alter(env, GROUP, group, [("consumer.session.timeout.ms", SET, "50000")]), 0)
    settle(True)
    error, all_of_them = listed([])
    equal(error, 0)
    brokers = [str(b["node_id"]) for b in env.cluster.metadata([])["brokers"]]
    for want in [(topic, TOPIC), (group, GROUP), *((b, kind) for b in brokers for kind in (BROKER, BROKER_LOGGER))]:
        assert want in all_of_them, f"{want} is missing"
    equal({kind for _, kind in listed([TOPIC, TOPIC])[1]}, {TOPIC})
    equal(listed([CLIENT_METRICS]), (0, []))
    equal(listed([64])[0], UNSUPPORTED_VERSION)
    equal(listed(None, 0), (0, []), "version 0 knows client metrics only")
    equal(alter(env, GROUP, group, [("consumer.session.timeout.ms", DELETE, None)]), 0)
    settle(False)


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
