"""confluent-kafka (librdkafka 2.x) behind the runner's commands."""
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import confluent_kafka as ck  # noqa: E402
from confluent_kafka import admin  # noqa: E402
from pydriver import ClientError, record, serve, unb64  # noqa: E402

BASE = {"metadata.max.age.ms": 1000, "topic.metadata.refresh.interval.ms": 1000, "log_level": 3,
        "reconnect.backoff.max.ms": 500, "socket.timeout.ms": 10000}


class Driver:
    def __init__(self, bootstrap):
        self.base = {"bootstrap.servers": bootstrap, **BASE}
        self.producers, self.consumer_, self.admin_, self.position, self.members = {}, None, None, {}, {}

    def hello(self):
        return {"client": "confluent-kafka", "version": f"{ck.__version__} (librdkafka {ck.libversion()[0]})"}

    def producer(self, codec, acks, idempotent, batch_bytes, max_request, delivery_ms):
        key = (codec, acks, idempotent, batch_bytes, max_request, delivery_ms)
        if key not in self.producers:
            self.producers[key] = ck.Producer({
                **self.base, "compression.type": codec, "acks": acks, "enable.idempotence": idempotent, "batch.size": batch_bytes,
                "message.max.bytes": max_request, "linger.ms": 100, "delivery.timeout.ms": delivery_ms,
                "batch.num.messages": 1000000})
        return self.producers[key]

    def produce(self, topic, records, codec="none", acks=-1, idempotent=False, batch_bytes=65536, max_request=1000000, delivery_ms=30000):
        producer = self.producer(codec, acks, idempotent, batch_bytes, max_request, delivery_ms)
        offsets, errors = [None] * len(records), []

        def done(i):
            def report(err, msg):
                if err:
                    errors.append(err)
                else:
                    offsets[i] = -1 if acks == 0 else msg.offset()
            return report
        for i, r in enumerate(records):
            producer.produce(topic, value=unb64(r["v"]), key=unb64(r["k"]), partition=r["p"], timestamp=r["ts"],
                             headers=[(n, unb64(v)) for n, v in r["h"]], on_delivery=done(i))
        producer.flush(delivery_ms / 1000 + 5)
        if errors:
            raise ClientError(errors[0].code(), errors[0].str())
        return {"offsets": offsets}

    def consumer(self):
        if self.consumer_ is None:
            # group.id is mandatory in this library; with assign() and no commit it never reaches the broker.
            self.consumer_ = ck.Consumer({**self.base, "group.id": "unused", "enable.auto.commit": False, "auto.offset.reset": "error",
                                          "fetch.wait.max.ms": 100, "enable.auto.offset.store": False, "check.crcs": True})
        return self.consumer_

    def consume(self, topic, p, at, count, timeout_ms, value=None):
        consumer = self.consumer()
        if at == "continue":
            start = self.position[topic, p]
        elif at == "offset":
            start = value
        elif at == "timestamp":
            start = self.time(topic, p, value)["offset"]
        else:
            ends = self.offsets(topic, p)
            start = ends["earliest"] if at == "earliest" else ends["latest"]
        consumer.assign([ck.TopicPartition(topic, p, start)])
        out, deadline = [], time.monotonic() + timeout_ms / 1000
        while len(out) < count and time.monotonic() < deadline:
            for m in consumer.consume(count - len(out), 0.2):
                if m.error():
                    if m.error().retriable() or m.error().code() in (ck.KafkaError._TRANSPORT, ck.KafkaError._ALL_BROKERS_DOWN):
                        continue
                    raise ClientError(m.error().code(), m.error().str())
                out.append(record(m.offset(), m.timestamp()[1], m.key(), m.value(), m.headers()))
        consumer.unassign()
        self.position[topic, p] = start = out[-1]["o"] + 1 if out else start
        return {"records": out, "position": start}

    def offsets(self, topic, p):
        deadline = time.monotonic() + 10
        while True:
            try:
                low, high = self.consumer().get_watermark_offsets(ck.TopicPartition(topic, p), timeout=15)
                return {"earliest": low, "latest": high}
            except ck.KafkaException as e:
                # librdkafka finds a partition unknown now and then while its metadata is renewed, with any broker
                # (confluent-kafka-python issue 1043); asking again helps.
                # This call does not look for another leader by itself either.
                passing = (ck.KafkaError._UNKNOWN_PARTITION, ck.KafkaError.NOT_LEADER_FOR_PARTITION, ck.KafkaError._TRANSPORT,
                           ck.KafkaError.LEADER_NOT_AVAILABLE, ck.KafkaError.OFFSET_NOT_AVAILABLE)
                if e.args[0].code() not in passing or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def time(self, topic, p, ts):
        got = self.consumer().offsets_for_times([ck.TopicPartition(topic, p, ts)], timeout=15)[0]
        if got.error:
            raise ClientError(got.error.code(), got.error.str())
        return {"offset": got.offset}

    def admin(self):
        if self.admin_ is None:
            self.admin_ = admin.AdminClient(self.base)
        return self.admin_

    def create(self, topic, partitions, configs):
        self.wait(self.admin().create_topics([admin.NewTopic(topic, partitions, 1, config=configs)])[topic])

    def delete(self, topic):
        self.wait(self.admin().delete_topics([topic])[topic])

    def configs(self, topic):
        got = self.wait(next(iter(self.admin().describe_configs([admin.ConfigResource(admin.ResourceType.TOPIC, topic)]).values())))
        return {"configs": {n: e.value for n, e in got.items()}}

    def metadata(self, topic):
        got = self.admin().list_topics(topic, timeout=15)
        return {"brokers": sorted([b.id, b.host, b.port] for b in got.brokers.values()), "partitions": len(got.topics[topic].partitions)}

    def join(self, member, group, topics, protocol="classic", session_ms=6000):
        conf = {**self.base, "group.id": group, "enable.auto.commit": False, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 100,
                "group.protocol": protocol, "client.id": member}
        if protocol == "classic":
            conf |= {"session.timeout.ms": session_ms, "heartbeat.interval.ms": 500}
        self.members[member] = ck.Consumer(conf)
        self.members[member].subscribe(topics)

    def take(self, member, count, timeout_ms):
        """Also gives the member the time to take part in rebalances."""
        consumer, out, deadline = self.members[member], [], time.monotonic() + timeout_ms / 1000
        while time.monotonic() < deadline and (count == 0 or len(out) < count):
            for m in consumer.consume(max(1, count - len(out)), 0.1):
                if m.error():
                    if m.error().retriable() or m.error().code() in (ck.KafkaError._TRANSPORT, ck.KafkaError._ALL_BROKERS_DOWN):
                        continue
                    raise ClientError(m.error().code(), m.error().str())
                out.append([m.topic(), m.partition(), m.offset()])
        return {"records": out, "assigned": sorted([a.topic, a.partition] for a in consumer.assignment())}

    def commit(self, member):
        try:
            got = self.members[member].commit(asynchronous=False)
        except ck.KafkaException as e:
            if e.args[0].code() != ck.KafkaError._NO_OFFSET:  # it has read nothing yet
                raise
            got = []
        return {"offsets": sorted([t.topic, t.partition, t.offset] for t in got)}

    def leave(self, member):
        self.members.pop(member).close()

    @staticmethod
    def wait(future):
        try:
            return future.result(20)
        except ck.KafkaException as e:
            raise ClientError(e.args[0].code(), e.args[0].str()) from None


serve(Driver(sys.argv[1]))
