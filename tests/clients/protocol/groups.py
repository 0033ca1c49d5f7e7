"""A thin client for groups: finds the coordinator, joins, syncs, commits. For tests."""
import struct
import time

from . import group_apis as g
from .wire import Connection

LOADING, NOT_AVAILABLE, NOT_COORDINATOR = 14, 15, 16
MEMBER_ID_REQUIRED = 79


def subscription(topics):
    """ConsumerProtocolSubscription version 0."""
    return struct.pack(">hi", 0, len(topics)) + b"".join(struct.pack(">h", len(t)) + t.encode() for t in topics) + struct.pack(">i", -1)


def assignment(topic, partitions):
    """ConsumerProtocolAssignment version 0."""
    named = struct.pack(">h", len(topic)) + topic.encode() + struct.pack(f">i{len(partitions)}i", len(partitions), *partitions)
    return struct.pack(">hi", 0, 1) + named + struct.pack(">i", -1)


def find(env, group, key_type=0, version=2):
    """The answer of FindCoordinator, asked again while the coordinator is not ready (Kafka creates its topic then)."""
    deadline = time.monotonic() + 30
    while True:
        values = {"key": group, "key_type": key_type, "keys": [group]}
        got = env.cluster.call(g.FIND_COORDINATOR, version, values)
        got = got["coordinators"][0] if version >= 4 else got
        if got["error_code"] != NOT_AVAILABLE or key_type or time.monotonic() > deadline:
            return got
        time.sleep(0.2)


def coordinator(env, group):
    """A connection to the group's coordinator, which serves."""
    found = find(env, group)
    c = env.cluster._track(Connection(found["host"], found["port"]))
    deadline = time.monotonic() + 30
    while fetch(c, group, None)["error_code"] in (LOADING, NOT_COORDINATOR) and time.monotonic() < deadline:
        time.sleep(0.1)
    return c


def join_request(group, member="", topics=("t",), protocols=("range",), instance=None, session_ms=6000, rebalance_ms=3000,
                 protocol_type="consumer", metadata=None):
    data = subscription(topics) if metadata is None else metadata
    return {"group": group, "session_timeout_ms": session_ms, "rebalance_timeout_ms": rebalance_ms, "member": member, "instance": instance,
            "protocol_type": protocol_type, "protocols": [{"name": p, "metadata": data} for p in protocols], "reason": None}


def join(c, group, member="", version=5, **more):
    """Joins, in two steps where the broker wants that (KIP-394)."""
    got = c.call(g.JOIN_GROUP, version, join_request(group, member, **more), timeout_s=20)
    if got["error_code"] == MEMBER_ID_REQUIRED:
        got = c.call(g.JOIN_GROUP, version, join_request(group, got["member"], **more), timeout_s=20)
    return got


def sync_request(group, generation, member, assignments=None, instance=None, protocol=None):
    return {"group": group, "generation": generation, "member": member, "instance": instance,
            "protocol_type": "consumer" if protocol else None, "protocol": protocol,
            "assignments": [{"member": m, "assignment": a} for m, a in (assignments or {}).items()]}


def sync(c, group, generation, member, assignments=None, version=3, **more):
    return c.call(g.SYNC_GROUP, version, sync_request(group, generation, member, assignments, **more), timeout_s=20)


def alone(env, group, topics=("t",), share=b"mine", **more):
    """A group with one member in its first generation: connection, member id, generation."""
    c = coordinator(env, group)
    joined = join(c, group, topics=topics, **more)
    assert joined["error_code"] == 0 and joined["leader"] == joined["member"], joined
    synced = sync(c, group, joined["generation"], joined["member"], {joined["member"]: share})
    assert (synced["error_code"], synced["assignment"]) == (0, share), synced
    return c, joined["member"], joined["generation"]


def heartbeat(c, group, generation, member, version=3, instance=None):
    values = {"group": group, "generation": generation, "member": member, "instance": instance}
    return c.call(g.HEARTBEAT, version, values)["error_code"]


def commit(c, group, topic, offsets, generation=-1, member="", version=8, metadata="", epoch=-1, topic_id=bytes(16), instance=None):
    """{partition: error code} of a commit of {partition: offset}."""
    parts = [{"index": p, "offset": o, "leader_epoch": epoch, "metadata": metadata} for p, o in offsets.items()]
    got = c.call(g.OFFSET_COMMIT, version, {
        "group": group, "generation": generation, "member": member, "instance": instance, "retention_ms": -1,
        "topics": [{"name": topic, "topic_id": topic_id, "partitions": parts}]})
    return {p["index"]: p["error_code"] for t in got["topics"] for p in t["partitions"]}


def fetch(c, group, topics, version=8, stable=False, topic_id=bytes(16)):
    """The group's part of an OffsetFetch; `topics`: {name: [partition…]} or None for all."""
    asked = None if topics is None else [{"name": t, "topic_id": topic_id, "partitions": p} for t, p in topics.items()]
    if version >= 8:
        got = c.call(g.OFFSET_FETCH, version, {
            "group": "", "topics": None, "require_stable": stable,
            "groups": [{"group": group, "member": None, "member_epoch": -1, "topics": asked}]})
        return got["groups"][0]
    old = None if asked is None else [{"name": t["name"], "partitions": t["partitions"]} for t in asked]
    return {"error_code": 0, **c.call(g.OFFSET_FETCH, version, {"group": group, "topics": old, "groups": [], "require_stable": stable})}


def offsets(c, group, topics, version=8, **more):
    """{(topic, partition): offset} of what is committed."""
    got = fetch(c, group, topics, version, **more)
    assert got["error_code"] == 0, got
    return {(t.get("name") or t["topic_id"], p["index"]): p["offset"] for t in got["topics"] for p in t["partitions"]}
