"""Groups of the new consumer protocol (KIP-848). Rules: features.md."""
import time
import uuid

from . import apis
from . import group_apis as g
from .groups import alone, assignment, commit, coordinator, fetch, join, offsets
from .suite import equal, test
from .wire import Reader

INVALID_REQUEST, UNKNOWN_MEMBER, NOT_FOUND, FENCED_EPOCH, UNSUPPORTED_ASSIGNOR, STALE_EPOCH = 42, 25, 69, 110, 112, 113


def member_id():
    return str(uuid.uuid4())


def beat(c, group, member, epoch, names=None, version=1, owned=None, regex=None, assignor=None, rebalance_ms=-1):
    if epoch == 0:
        owned, rebalance_ms = [], 60_000
    return c.call(g.CONSUMER_GROUP_HEARTBEAT, version, {
        "group": group, "member": member, "member_epoch": epoch, "instance": None, "rack": None, "rebalance_timeout_ms": rebalance_ms,
        "names": names, "regex": regex, "assignor": assignor, "owned": owned})


def given(answer):
    """{topic id: [partition…]} of an answer with an assignment."""
    return {t["topic_id"]: sorted(t["partitions"]) for t in answer["assignment"]["partitions"]}


def known(env, partitions):
    """A topic and its id, known to every part of the broker."""
    topic = env.topic(partitions)
    return topic, env.cluster.metadata([topic], version=10)["topics"][0]["topic_id"]


def until(act, good, wait_s=15):
    deadline = time.monotonic() + wait_s
    while not good(got := act()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still {got}")
        time.sleep(0.1)
    return got


@test
def the_feature_is_finalized(env):
    got = env.connect().call(apis.API_VERSIONS, 4, {"software_name": "raw", "software_version": "1"})
    reader = Reader(got["_tags"][2])
    levels = {}
    for _ in range(reader.uvarint() - 1):
        name = reader.take(reader.uvarint() - 1).decode()
        levels[name] = reader.fixed("i16")
        reader.fixed("i16")
        reader.tags()
    equal(levels.get("group.version"), 1)


@test
def one_member_gets_everything_and_two_share(env):
    topic, topic_id = known(env, 4)
    group, one, two = env.name("g"), member_id(), member_id()
    c = coordinator(env, group)
    first = beat(c, group, one, 0, [topic])
    equal((first["error_code"], first["member"], given(first)), (0, one, {topic_id: [0, 1, 2, 3]}))
    assert first["member_epoch"] > 0 and first["heartbeat_interval_ms"] > 0, first
    epoch = first["member_epoch"]
    second = beat(c, group, two, 0, [topic])
    equal((second["error_code"], second["assignment"] and given(second) or {}), (0, {}), "everything is still the first one's")
    keeps = until(lambda: beat(c, group, one, epoch), lambda got: got["assignment"] is not None)
    kept = given(keeps)[topic_id]
    equal(len(kept), 2)
    freed = beat(c, group, one, keeps["member_epoch"], owned=[{"topic_id": topic_id, "partitions": kept}])
    equal(freed["error_code"], 0)
    gets = until(lambda: beat(c, group, two, second["member_epoch"]), lambda got: got["assignment"] and given(got))
    equal(sorted(kept + given(gets)[topic_id]), [0, 1, 2, 3])
    described = c.call(g.CONSUMER_GROUP_DESCRIBE, 1, {"groups": [group], "operations": True})["groups"][0]
    equal((described["error_code"], described["assignor"], len(described["members"])), (0, "uniform", 2))
    equal({m["type"] for m in described["members"]}, {1})


@test
def heartbeats_that_cannot_be(env):
    topic, _ = known(env, 1)
    group, one = env.name("g"), member_id()
    c = coordinator(env, group)
    equal(beat(c, group, one, 5)["error_code"], NOT_FOUND, "no such group")
    first = beat(c, group, one, 0, [topic])
    equal(beat(c, group, member_id(), first["member_epoch"])["error_code"], UNKNOWN_MEMBER)
    equal(beat(c, group, one, first["member_epoch"] + 7)["error_code"], FENCED_EPOCH)
    equal(beat(c, group, member_id(), 0, [topic], assignor="nobody's")["error_code"], UNSUPPORTED_ASSIGNOR)
    equal(beat(c, "", one, 0, [topic])["error_code"], INVALID_REQUEST)


@test
def commits_follow_the_member_epoch(env):
    topic, _ = known(env, 2)
    group, one = env.name("g"), member_id()
    c = coordinator(env, group)
    epoch = beat(c, group, one, 0, [topic])["member_epoch"]
    equal(commit(c, group, topic, {0: 3}, epoch, one, version=9), {0: 0})
    equal(commit(c, group, topic, {0: 4}, epoch - 1, one, version=9), {0: STALE_EPOCH})
    equal(commit(c, group, topic, {0: 4}, epoch, member_id(), version=9), {0: UNKNOWN_MEMBER})
    equal(offsets(c, group, {topic: [0, 1]}), {(topic, 0): 3, (topic, 1): -1})


@test
def leaving_frees_the_group(env):
    topic, _ = known(env, 1)
    group, one = env.name("g"), member_id()
    c = coordinator(env, group)
    beat(c, group, one, 0, [topic])
    left = beat(c, group, one, -1)
    equal((left["error_code"], left["member_epoch"]), (0, -1))
    described = c.call(g.CONSUMER_GROUP_DESCRIBE, 0, {"groups": [group], "operations": False})["groups"][0]
    equal((described["state"], described["members"]), ("Empty", []))
    equal(c.call(g.DELETE_GROUPS, 2, {"groups": [group]})["results"][0]["error_code"], 0)


@test
def patterns_are_resolved_by_the_broker(env):
    topic, topic_id = known(env, 2)
    group, one = env.name("g"), member_id()
    c = coordinator(env, group)
    first = beat(c, group, one, 0, names=[], regex=topic + "$|nothing-else")
    got = first if first["assignment"] and given(first) else until(
        lambda: beat(c, group, one, first["member_epoch"]), lambda answer: answer["assignment"] and given(answer))
    equal(given(got), {topic_id: [0, 1]})


@test
def a_classic_group_is_taken_over_and_given_back(env):
    """KIP-848's online migration: the classic member stays in; when the new one leaves the group is classic again."""
    topic, _ = known(env, 2)
    group = env.name("g")
    c, member, generation = alone(env, group, topics=(topic,), share=assignment(topic, [0, 1]))
    equal(commit(c, group, topic, {1: 11}, generation, member), {1: 0})
    d, new = coordinator(env, group), member_id()
    got = beat(d, group, new, 0, [topic])
    equal(got["error_code"], 0)
    equal(offsets(d, group, {topic: [1]}), {(topic, 1): 11}, "offsets stay")
    equal(beat(d, group, new, -1)["error_code"], 0)
    joined = join(c, group, member, topics=(topic,))
    equal((joined["error_code"], joined["leader"]), (0, member))
    equal(fetch(c, group, {topic: [1]})["topics"][0]["partitions"][0]["offset"], 11)
