"""Groups of the classic protocol and committed offsets. Rules: features.md, ux.md §5.2."""
import time

from . import apis, batch
from . import group_apis as g
from .batch import Record
from .client import produce
from .groups import (alone, commit, coordinator, fetch, find, heartbeat, join, join_request, offsets, subscription, sync, sync_request)
from .suite import equal, test
from .wire import Connection

UNKNOWN_TOPIC, NOT_COORDINATOR, INVALID_TOPIC = 3, 16, 17
ILLEGAL_GENERATION, INCONSISTENT_PROTOCOL, INVALID_GROUP_ID, UNKNOWN_MEMBER = 22, 23, 24, 25
INVALID_SESSION_TIMEOUT, REBALANCE, METADATA_TOO_LARGE = 26, 27, 12
NON_EMPTY, NOT_FOUND, MEMBER_ID_REQUIRED, FENCED, SUBSCRIBED, UNKNOWN_TOPIC_ID = 68, 69, 79, 82, 86, 100
INVALID_REQUEST, NOT_AVAILABLE = 42, 15


@test
def every_version_of_find_coordinator_names_the_same_broker(env):
    group, seen = env.name("g"), set()
    for version in range(6):
        got = find(env, group, version=version)
        equal(got["error_code"], 0, f"v{version}")
        seen.add((got["node_id"], got["host"], got["port"]))
    equal(len(seen), 1, f"brokers {seen}")
    brokers = {(b["node_id"], b["host"], b["port"]) for b in env.cluster.metadata([])["brokers"]}
    assert seen <= brokers, f"{seen} is not among {brokers}"


@test
def several_coordinators_in_one_request(env):
    groups = [env.name("g") for _ in range(8)]
    find(env, groups[0])
    got = env.cluster.call(g.FIND_COORDINATOR, 4, {"key": None, "key_type": 0, "keys": groups})["coordinators"]
    equal([c["key"] for c in got], groups)
    equal({c["error_code"] for c in got}, {0})


@test
def an_unknown_kind_of_key_is_refused(env):
    equal(find(env, "x", key_type=9)["error_code"], INVALID_REQUEST)


@test
def the_offsets_topic_is_internal_and_compacted(env):
    find(env, env.name("g"))
    got = env.cluster.metadata(["__consumer_offsets"])["topics"][0]
    equal((got["error_code"], got["is_internal"]), (0, True))
    got = env.cluster.call(apis.DESCRIBE_CONFIGS, 1, {
        "resources": [{"type": 2, "name": "__consumer_offsets", "keys": None}], "include_synonyms": False,
        "include_documentation": False})["results"][0]
    values = {c["name"]: c["value"] for c in got["configs"]}
    equal({n: values[n] for n in ("cleanup.policy", "segment.bytes", "compression.type")},
          {"cleanup.policy": "compact", "segment.bytes": "104857600", "compression.type": "producer"})


@test
def clients_may_not_write_to_the_offsets_topic(env):
    find(env, env.name("g"))
    c = env.leader("__consumer_offsets", 0)
    equal(produce(c, "__consumer_offsets", 0, batch.build([Record(b"v", b"k", 1)]))["error_code"], INVALID_TOPIC)


@test(only="pelton")
def its_partitions_cannot_be_added_to(env):
    """Kafka lets that happen, and groups lose their offsets."""
    find(env, env.name("g"))
    got = env.cluster.call(apis.CREATE_PARTITIONS, 1, {
        "topics": [{"name": "__consumer_offsets", "count": 70, "assignments": None}], "timeout_ms": 1000, "validate_only": False})
    equal(got["results"][0]["error_code"], INVALID_REQUEST)


@test(only="pelton")
def other_shards_are_not_the_coordinator(env):
    if env.broker.mode != "direct":
        return
    group = env.name("g")
    found = find(env, group)
    for broker in env.cluster.metadata([])["brokers"]:
        if broker["node_id"] != found["node_id"]:
            with Connection(broker["host"], broker["port"]) as c:
                equal(heartbeat(c, group, 1, "m"), NOT_COORDINATOR)
                equal(fetch(c, group, None)["error_code"], NOT_COORDINATOR)
                equal(commit(c, group, "t", {0: 1}), {0: NOT_COORDINATOR})


@test
def two_step_join_from_version_4(env):
    group = env.name("g")
    c = coordinator(env, group)
    got = c.call(g.JOIN_GROUP, 4, join_request(group), client_id="raw")
    equal((got["error_code"], got["member"].startswith("raw-")), (MEMBER_ID_REQUIRED, True))
    got = c.call(g.JOIN_GROUP, 4, join_request(group, got["member"]), timeout_s=20)
    equal((got["error_code"], got["generation"], got["leader"] == got["member"]), (0, 1, True))


@test
def every_version_of_join_and_sync(env):
    for version in range(10):
        group = env.name("g")
        c = coordinator(env, group)
        got = join(c, group, version=version)
        equal((got["error_code"], got["generation"], got["protocol"]), (0, 1, "range"), f"join v{version}")
        equal([m["metadata"] for m in got["members"]], [subscription(["t"])], f"join v{version}")
        at = min(version, 5)
        got = sync(c, group, 1, got["member"], {got["member"]: b"all"}, version=at, protocol="range" if at >= 5 else None)
        equal((got["error_code"], got["assignment"]), (0, b"all"), f"sync v{at}")


@test
def joins_that_cannot_be(env):
    group = env.name("g")
    c = coordinator(env, group)
    call = lambda **more: c.call(g.JOIN_GROUP, 5, join_request(**{"group": group, **more}))["error_code"]  # noqa: E731
    equal(call(session_ms=1), INVALID_SESSION_TIMEOUT)
    equal(call(group=""), INVALID_GROUP_ID)
    equal(call(member="nobody"), UNKNOWN_MEMBER)
    alone(env, group)
    equal(call(protocols=("other",)), INCONSISTENT_PROTOCOL)
    equal(call(protocol_type="connect"), INCONSISTENT_PROTOCOL)


@test
def a_second_member_makes_a_new_generation(env):
    group = env.name("g")
    c, member, generation = alone(env, group)
    d = coordinator(env, group)
    first = d.call(g.JOIN_GROUP, 5, join_request(group))
    waiting = d.send(g.JOIN_GROUP, 5, join_request(group, first["member"]))
    deadline = time.monotonic() + 5
    while (code := heartbeat(c, group, generation, member)) == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    equal(code, REBALANCE, "the old member's heartbeat")
    leads = join(c, group, member)
    follows = d.receive(g.JOIN_GROUP, 5, waiting, 20)
    equal((leads["generation"], follows["generation"]), (generation + 1, generation + 1))
    equal(sorted(m["member"] for m in leads["members"]), sorted([member, follows["member"]]))
    equal(follows["members"], [], "only the leader gets the members")
    asked = d.send(g.SYNC_GROUP, 3, sync_request(group, follows["generation"], follows["member"]))
    got = sync(c, group, leads["generation"], member, {member: b"a", follows["member"]: b"b"})
    equal((got["assignment"], d.receive(g.SYNC_GROUP, 3, asked, 20)["assignment"]), (b"a", b"b"))
    equal(heartbeat(c, group, generation, member), ILLEGAL_GENERATION, "the old generation")
    equal(heartbeat(d, group, generation + 1, "nobody"), UNKNOWN_MEMBER)


@test
def a_silent_member_is_out_after_its_session(env):
    group = env.name("g")
    c, member, generation = alone(env, group, session_ms=6000)
    deadline = time.monotonic() + 15
    state = lambda: c.call(g.DESCRIBE_GROUPS, 5, {"groups": [group], "operations": False})["groups"][0]["state"]  # noqa: E731
    equal(state(), "Stable")
    while state() != "Empty" and time.monotonic() < deadline:
        time.sleep(0.2)
    equal(state(), "Empty")
    equal(heartbeat(c, group, generation, member), UNKNOWN_MEMBER)


@test
def static_members_come_back_without_a_rebalance(env):
    group = env.name("g")
    c, member, generation = alone(env, group, instance="i")
    got = join(c, group, instance="i")
    equal((got["error_code"], got["generation"], got["member"] != member), (0, generation, True))
    equal(heartbeat(c, group, generation, member, instance="i"), FENCED)
    equal(heartbeat(c, group, generation, got["member"], instance="i"), 0)
    values = {"group": group, "member": "", "members": [{"member": "", "instance": "i", "reason": None}]}
    got = c.call(g.LEAVE_GROUP, 4, values)
    equal([m["error_code"] for m in got["members"]], [0])


@test
def leaving_ends_a_group(env):
    group = env.name("g")
    c, member, generation = alone(env, group)
    equal(c.call(g.LEAVE_GROUP, 1, {"group": group, "member": member, "members": []})["error_code"], 0)
    equal(heartbeat(c, group, generation, member), UNKNOWN_MEMBER)


@test
def every_version_of_commit_and_fetch_round_trips(env):
    topic = env.topic(3)
    topic_id = env.cluster.metadata([topic], version=10)["topics"][0]["topic_id"]
    for version in range(2, 11):
        group = env.name("g")
        c = coordinator(env, group)
        got = commit(c, group, topic, {0: 5, 2: 7}, version=version, metadata=f"m{version}", epoch=0, topic_id=topic_id)
        equal(got, {0: 0, 2: 0}, f"commit v{version}")
        for at in range(1, 11):
            got = fetch(c, group, {topic: [0, 1, 2]}, version=at, topic_id=topic_id)
            parts = {p["index"]: (p["offset"], p["metadata"], p["error_code"]) for p in got["topics"][0]["partitions"]}
            equal(parts, {0: (5, f"m{version}", 0), 1: (-1, "", 0), 2: (7, f"m{version}", 0)}, f"fetch v{at}")
            if version >= 6 and at >= 5:
                equal({p["leader_epoch"] for p in got["topics"][0]["partitions"] if p["offset"] >= 0}, {0}, f"epoch v{at}")
        all_of = offsets(c, group, None, version=9, stable=True)
        equal(all_of, {(topic, 0): 5, (topic, 2): 7}, "all")


@test
def commits_that_cannot_be(env):
    topic, group = env.topic(), env.name("g")
    c, member, generation = alone(env, group, topics=(topic,))
    equal(commit(c, group, topic, {0: 1}, generation, member), {0: 0})
    equal(commit(c, group, topic, {0: 2}, generation - 1, member), {0: ILLEGAL_GENERATION})
    equal(commit(c, group, topic, {0: 2}, generation + 1, member), {0: ILLEGAL_GENERATION})
    equal(commit(c, group, topic, {0: 2}, generation, "nobody"), {0: UNKNOWN_MEMBER})
    equal(commit(c, group, topic, {0: 2}), {0: UNKNOWN_MEMBER}, "from outside of a group with members")
    equal(commit(c, group, "not-there", {0: 2}, generation, member), {0: UNKNOWN_TOPIC})
    equal(commit(c, group, topic, {0: 2}, generation, member, metadata="x" * 5000), {0: METADATA_TOO_LARGE})
    equal(offsets(c, group, {topic: [0]}), {(topic, 0): 1})


@test
def unknown_topic_ids(env):
    group, nobody = env.name("g"), bytes(15) + b"\x77"
    c = coordinator(env, group)
    equal(commit(c, group, "", {0: 2}, version=10, topic_id=nobody), {0: UNKNOWN_TOPIC_ID})
    got = fetch(c, group, {"": [0]}, version=10, topic_id=nobody)["topics"][0]["partitions"][0]
    equal((got["offset"], got["error_code"]), (-1, UNKNOWN_TOPIC_ID))


@test
def offsets_of_several_groups_at_once(env):
    topic, groups = env.topic(), [env.name("g") for _ in range(6)]
    places = {}
    for i, group in enumerate(groups):
        found = find(env, group)
        places.setdefault((found["host"], found["port"]), []).append(group)
        equal(commit(coordinator(env, group), group, topic, {0: i}), {0: 0})
    for (host, port), there in places.items():
        with Connection(host, port) as c:
            got = c.call(g.OFFSET_FETCH, 8, {"group": "", "topics": None, "require_stable": False, "groups": [
                {"group": group, "member": None, "member_epoch": -1, "topics": None} for group in there]})["groups"]
            equal({x["group"]: x["topics"][0]["partitions"][0]["offset"] for x in got}, {n: groups.index(n) for n in there})


@test
def groups_are_listed_and_described(env):
    group, simple, topic = env.name("g"), env.name("g"), env.topic()
    alone(env, group, metadata=b"\0\1opaque", protocol_type="connect")
    equal(commit(coordinator(env, simple), simple, topic, {0: 1}), {0: 0})
    listed = {}
    for broker in env.cluster.metadata([])["brokers"]:
        with Connection(broker["host"], broker["port"]) as c:
            for version in range(6):
                got = c.call(g.LIST_GROUPS, version, {"states": [], "types": []})
                equal(got["error_code"], 0, f"v{version}")
            listed |= {x["group"]: (x["protocol_type"], x["state"], x["type"]) for x in got["groups"]}
            got = c.call(g.LIST_GROUPS, 5, {"states": ["empty"], "types": ["classic"]})
            assert group not in {x["group"] for x in got["groups"]}, "a stable group among empty ones"
    equal(listed[group], ("connect", "Stable", "classic"))
    equal(listed[simple], ("", "Empty", "classic"))
    for version in range(7):
        got = coordinator(env, group).call(g.DESCRIBE_GROUPS, version, {"groups": [group], "operations": True})["groups"][0]
        equal((got["error_code"], got["state"], got["protocol_type"], got["protocol"]), (0, "Stable", "connect", "range"), f"v{version}")
        member = got["members"][0]
        equal((member["client_id"], member["host"], member["metadata"], member["assignment"]), ("raw", "/127.0.0.1", b"\0\1opaque", b"mine"))
    got = coordinator(env, "nobody").call(g.DESCRIBE_GROUPS, 6, {"groups": ["nobody"], "operations": False})["groups"][0]
    equal((got["error_code"], got["state"]), (NOT_FOUND, "Dead"))


@test
def groups_are_deleted_when_empty(env):
    topic, group = env.topic(), env.name("g")
    c, member, generation = alone(env, group, topics=(topic,))
    equal(commit(c, group, topic, {0: 9}, generation, member), {0: 0})
    delete = lambda name: c.call(g.DELETE_GROUPS, 2, {"groups": [name]})["results"][0]["error_code"]  # noqa: E731
    equal(delete(group), NON_EMPTY)
    c.call(g.LEAVE_GROUP, 1, {"group": group, "member": member, "members": []})
    equal(offsets(c, group, {topic: [0]}), {(topic, 0): 9}, "offsets stay when the members leave")
    equal(delete(group), 0)
    equal(offsets(c, group, {topic: [0]}), {(topic, 0): -1})
    equal(delete(group), NOT_FOUND)


@test
def single_offsets_are_deleted(env):
    read, unread, group = env.topic(), env.topic(), env.name("g")
    c, member, generation = alone(env, group, topics=(read,))
    for topic in (read, unread):
        equal(commit(c, group, topic, {0: 4}, generation, member), {0: 0})
    got = c.call(g.OFFSET_DELETE, 0, {"group": group, "topics": [{"name": t, "partitions": [{"index": 0}]} for t in (read, unread)]})
    equal({t["name"]: t["partitions"][0]["error_code"] for t in got["topics"]}, {read: SUBSCRIBED, unread: 0})
    equal(offsets(c, group, {read: [0], unread: [0]}), {(read, 0): 4, (unread, 0): -1})


@test
def offsets_go_with_their_topic(env):
    topic, group = env.topic(), env.name("g")
    c = coordinator(env, group)
    equal(commit(c, group, topic, {0: 4}), {0: 0})
    env.cluster.call(apis.DELETE_TOPICS, 1, {"names": [topic], "timeout_ms": 5000})
    deadline = time.monotonic() + 10
    while offsets(c, group, {topic: [0]}) != {(topic, 0): -1} and time.monotonic() < deadline:
        time.sleep(0.1)
    equal(offsets(c, group, {topic: [0]}), {(topic, 0): -1})


@test
def what_is_stored_are_kafkas_records(env):
    """The key of a committed offset as tools such as Burrow read it: version 1, group, topic, partition."""
    topic, group = env.topic(), env.name("g")
    equal(commit(coordinator(env, group), group, topic, {0: 77}, metadata="note"), {0: 0})
    key = b"\0\1" + b"".join(len(t).to_bytes(2, "big") + t.encode() for t in (group, topic)) + bytes(4)
    count = len(env.cluster.metadata(["__consumer_offsets"])["topics"][0]["partitions"])
    found = [r for p in range(count) for b in env.cluster.fetch_batches("__consumer_offsets", p)
             for r in batch.records(b) if r.key == key]
    equal(len(found), 1)
    value = found[0].value  # offset, leader epoch, metadata, commit time; Kafka 4.3 writes version 4, the same in compact form
    version, metadata = int.from_bytes(value[:2], "big"), value[14:19]
    equal((int.from_bytes(value[2:10], "big"), metadata), (77, b"\x05note" if version >= 4 else b"\0\4not"), f"version {version}")
    assert version == 3 or env.kind != "pelton", "tools such as Burrow know versions to 3"
