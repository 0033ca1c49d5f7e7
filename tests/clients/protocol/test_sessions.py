"""Incremental fetch sessions (KIP-227). Rules: ux.md §5.2 #30; kafka FetchSession.scala."""
from . import apis, batch
from .batch import Record
from .client import fetch_request, produce
from .suite import equal, test

FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH = 70, 71


def start(env, topic, c, partition=0, offset=0):
    got = c.call(apis.FETCH, 11, fetch_request([(topic, partition, offset, 1 << 20)], session_id=0, session_epoch=0))
    equal(got["error_code"], 0)
    return got


def parts(got):
    return {(t["name"], p["index"]): p for t in got["topics"] for p in t["partitions"]}


@test
def full_fetch_opens_a_session(env):
    topic = env.topic()
    got = start(env, topic, env.leader(topic))
    assert got["session_id"] > 0, got["session_id"]
    equal(list(parts(got)), [(topic, 0)], "a full fetch names every partition, also an empty one")


@test
def epoch_minus_1_opens_none(env):
    topic = env.topic()
    got = env.leader(topic).call(apis.FETCH, 11, fetch_request([(topic, 0, 0, 1000)]))
    equal(got["session_id"], 0)


@test
def incremental_fetch_tells_only_what_is_new(env):
    topic = env.topic()
    c = env.leader(topic)
    session = start(env, topic, c)["session_id"]
    got = c.call(apis.FETCH, 11, fetch_request([], session_id=session, session_epoch=1))
    equal((got["error_code"], got["session_id"], parts(got)), (0, session, {}), "nothing new")
    produce(c, topic, 0, batch.build([Record(b"a")]))
    got = c.call(apis.FETCH, 11, fetch_request([], session_id=session, session_epoch=2))
    equal([b.base_offset for b in batch.parse(parts(got)[topic, 0]["records"])], [0], "the new batch")
    got = c.call(apis.FETCH, 11, fetch_request([(topic, 0, 1, 1 << 20)], session_id=session, session_epoch=3))
    equal(parts(got).get((topic, 0), {"records": b""})["records"], b"", "the moved position is remembered")
    produce(c, topic, 0, batch.build([Record(b"b")]))
    got = c.call(apis.FETCH, 11, fetch_request([], session_id=session, session_epoch=4))
    equal([b.base_offset for b in batch.parse(parts(got)[topic, 0]["records"])], [1], "from there")


@test
def partitions_can_be_added_and_forgotten(env):
    one, two = env.topic(), env.topic()
    c = env.leader(one)
    if env.cluster.address(one, 0) != env.cluster.address(two, 0):
        while env.cluster.address(one, 0) != env.cluster.address(two, 0):
            two = env.topic()
    session = start(env, one, c)["session_id"]
    got = c.call(apis.FETCH, 11, fetch_request([(two, 0, 0, 1000)], session_id=session, session_epoch=1))
    assert (two, 0) in parts(got), "a partition that is new in the session is always told"
    c.call(apis.FETCH, 11, fetch_request([], session_id=session, session_epoch=2, forgotten=[(two, [0])]))
    produce(c, two, 0, batch.build([Record(b"x")]))
    produce(c, one, 0, batch.build([Record(b"y")]))
    got = c.call(apis.FETCH, 11, fetch_request([], session_id=session, session_epoch=3))
    equal(list(parts(got)), [(one, 0)], "the forgotten one stays out")


@test
def wrong_epoch_and_unknown_id(env):
    topic = env.topic()
    c = env.leader(topic)
    session = start(env, topic, c)["session_id"]
    got = c.call(apis.FETCH, 11, fetch_request([], session_id=session, session_epoch=9))
    equal((got["error_code"], got["topics"]), (INVALID_FETCH_SESSION_EPOCH, []), "epoch")
    got = c.call(apis.FETCH, 11, fetch_request([], session_id=session ^ 0x2AAAAAAA, session_epoch=1))
    equal((got["error_code"], got["topics"]), (FETCH_SESSION_ID_NOT_FOUND, []), "id")


@test
def closing_a_session(env):
    topic = env.topic()
    c = env.leader(topic)
    session = start(env, topic, c)["session_id"]
    got = c.call(apis.FETCH, 11, fetch_request([(topic, 0, 0, 1000)], session_id=session, session_epoch=-1))
    equal((got["error_code"], got["session_id"]), (0, 0), "closed by epoch -1, and the fetch is served")
    got = c.call(apis.FETCH, 11, fetch_request([], session_id=session, session_epoch=1))
    equal(got["error_code"], FETCH_SESSION_ID_NOT_FOUND)


@test
def full_cache_answers_session_0(env):
    """Clients that leak sessions (sarama#1644) must not hurt: with the cache full (1000 slots) a fetch still works, without one."""
    topic = env.topic()
    c = env.leader(topic)
    opened = set()
    for _ in range(1200):
        got = start(env, topic, c)
        if got["session_id"] == 0:
            break
        opened.add(got["session_id"])
    else:
        raise AssertionError("1200 sessions at once and no end")
    equal(got["error_code"], 0, "the fetch itself works")
    assert len(opened) > 100, f"only {len(opened)} sessions fit"
    for session in opened:  # leave room for the tests behind
        c.call(apis.FETCH, 11, fetch_request([], session_id=session, session_epoch=-1))
