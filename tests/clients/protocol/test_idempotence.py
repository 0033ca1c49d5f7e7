"""Idempotent producers. Rules: KIP-98, kafka ProducerStateManager.java and ProducerAppendInfo.java; the last 5 batches are known."""
import time

from . import apis, batch
from .batch import Record
from .client import LATEST, produce, produce_request
from .suite import equal, test

COORDINATOR_LOAD_IN_PROGRESS = 14
OUT_OF_ORDER_SEQUENCE, DUPLICATE_SEQUENCE, INVALID_PRODUCER_EPOCH, UNKNOWN_PRODUCER_ID = 45, 46, 47, 59


def init(env, producer_id=-1, epoch=-1, version=4):
    deadline = time.monotonic() + (0 if env.kind == "pelton" else 5)
    while True:
        got = env.cluster.call(apis.INIT_PRODUCER_ID, version, {
            "transactional_id": None, "transaction_timeout_ms": 60000, "producer_id": producer_id, "producer_epoch": epoch})
        if got["error_code"] != COORDINATOR_LOAD_IN_PROGRESS or time.monotonic() > deadline:
            return got  # Kafka fetches its first block of ids only when asked


def data(producer_id, epoch, sequence, count=1):
    return batch.build([Record(f"{sequence + i}".encode()) for i in range(count)], producer_id, epoch, sequence)


class Producer:
    def __init__(self, env, partitions=1):
        self.env, self.topic = env, env.topic(partitions)
        self.connection = env.leader(self.topic)
        got = init(env)
        equal(got["error_code"], 0, "InitProducerId")
        self.id, self.epoch = got["producer_id"], got["producer_epoch"]

    def send(self, sequence, count=1, epoch=None, producer_id=None):
        """(error, base offset)"""
        got = produce(self.connection, self.topic, 0, data(self.id if producer_id is None else producer_id,
                                                           self.epoch if epoch is None else epoch, sequence, count))
        return got["error_code"], got["base_offset"]

    def end(self):
        return self.env.cluster.offset(self.topic, 0, LATEST)[2]


@test
def ids_are_new_each_time(env):
    got = [init(env, version=v) for v in (0, 1, 2, 3, 4) for _ in range(20)]
    equal({g["error_code"] for g in got}, {0})
    ids = [g["producer_id"] for g in got]
    equal((len(set(ids)), min(ids) >= 0, {g["producer_epoch"] for g in got}), (len(ids), True, {0}), "distinct ids, epoch 0")


@test
def every_shard_gives_ids_of_its_own(env):
    """Direct mode: several brokers answer InitProducerId; no id may come twice."""
    from .wire import Connection
    ids = []
    for b in env.cluster.metadata(None)["brokers"]:
        with Connection(b["host"], b["port"]) as c:
            for _ in range(50):
                ids.append(c.call(apis.INIT_PRODUCER_ID, 1, {"transactional_id": None, "transaction_timeout_ms": 60000})["producer_id"])
    equal(len(set(ids)), len(ids), "distinct ids")


@test
def in_order_sequences_are_appended(env):
    p = Producer(env)
    equal([p.send(0), p.send(1, 3), p.send(4)], [(0, 0), (0, 1), (0, 4)])


@test
def duplicate_gets_the_original_offset(env):
    p = Producer(env)
    for i in range(5):
        p.send(i * 2, 2)
    equal(p.send(8, 2), (0, 8), "last batch again")
    equal([p.send(i * 2, 2) for i in range(5)], [(0, i * 2) for i in range(5)], "each of the last five again")
    equal(p.end(), 10, "end offset")


@test
def duplicate_on_a_new_connection(env):
    p = Producer(env)
    p.send(0, 2)
    p.connection = env.leader(p.topic)
    equal((p.send(0, 2), p.end()), ((0, 0), 2))


@test
def older_than_five_batches_is_no_longer_known(env):
    p = Producer(env)
    for i in range(7):
        p.send(i)
    error, _ = p.send(0)
    assert error in (OUT_OF_ORDER_SEQUENCE, DUPLICATE_SEQUENCE), error
    equal(p.end(), 7, "end offset")


@test
def gap_is_out_of_order(env):
    p = Producer(env)
    p.send(0)
    equal((p.send(2)[0], p.end()), (OUT_OF_ORDER_SEQUENCE, 1))
    equal(p.send(1), (0, 1), "the right one still goes")


@test
def overlap_is_not_appended(env):
    """Sequences 0-3 are known, 2-5 overlaps: neither a duplicate nor the next."""
    p = Producer(env)
    p.send(0, 4)
    error, _ = p.send(2, 4)
    assert error in (OUT_OF_ORDER_SEQUENCE, DUPLICATE_SEQUENCE), error
    equal(p.end(), 4, "end offset")


@test
def first_sequence_of_an_unknown_producer(env):
    """Kafka takes any first sequence of a producer that it does not know (KAFKA-5793: state may have been retained away)."""
    p = Producer(env)
    error, _ = p.send(7)
    assert error in (0, OUT_OF_ORDER_SEQUENCE, UNKNOWN_PRODUCER_ID), error


@test
def old_epoch_is_fenced(env):
    p = Producer(env)
    p.send(0)
    equal(p.send(0, epoch=1), (0, 1), "a new epoch starts at sequence 0")
    error, _ = p.send(1, epoch=0)
    equal((error, p.end()), (INVALID_PRODUCER_EPOCH, 2))


@test
def new_epoch_must_start_at_0(env):
    p = Producer(env)
    p.send(0)
    equal((p.send(1, epoch=1)[0], p.end()), (OUT_OF_ORDER_SEQUENCE, 1))


@test
def sequence_wraps_behind_i32_max(env):
    p = Producer(env)
    top = (1 << 31) - 1
    error, _ = p.send(top)
    if error:
        return  # this broker wants 0 first; then the wrap cannot be reached in a test
    equal(p.send(0), (0, 1), "0 follows 2^31-1")


@test
def producers_do_not_mix(env):
    p = Producer(env)
    other = init(env)["producer_id"]
    equal([p.send(0), p.send(0, producer_id=other), p.send(1), p.send(1, producer_id=other)], [(0, 0), (0, 1), (0, 2), (0, 3)])


@test
def pipelined_sequences_on_one_connection(env):
    p = Producer(env)
    sent = [p.connection.send(apis.PRODUCE, 8, produce_request(p.topic, 0, data(p.id, p.epoch, i))) for i in range(50)]
    got = [p.connection.receive(apis.PRODUCE, 8, c)["topics"][0]["partitions"][0] for c in sent]
    equal([(g["error_code"], g["base_offset"]) for g in got], [(0, i) for i in range(50)])


@test
def pipelined_duplicates_on_one_connection(env):
    """A retry that overtakes the first answer must not be appended twice."""
    p = Producer(env)
    sent = [p.connection.send(apis.PRODUCE, 8, produce_request(p.topic, 0, data(p.id, p.epoch, i // 3))) for i in range(15)]
    got = [p.connection.receive(apis.PRODUCE, 8, c)["topics"][0]["partitions"][0] for c in sent]
    equal([(g["error_code"], g["base_offset"]) for g in got], [(0, i // 3) for i in range(15)])
    equal(p.end(), 5, "end offset")


@test
def bumping_an_unknown_id(env):
    """v3+: a producer may name its id and epoch. Without a transactional id Kafka gives a fresh one."""
    first = init(env)
    got = init(env, first["producer_id"], 0)
    equal(got["error_code"], 0)
    assert (got["producer_id"], got["producer_epoch"]) != (first["producer_id"], 0), got
