"""kafka-python behind the runner's commands."""
import logging
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import kafka  # noqa: E402
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition  # noqa: E402
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic  # noqa: E402
from pydriver import ClientError, Skip, record, serve, unb64  # noqa: E402

logging.disable(logging.CRITICAL)


class Driver:
    def __init__(self, bootstrap):
        self.base = {"bootstrap_servers": bootstrap, "metadata_max_age_ms": 1000, "reconnect_backoff_max_ms": 500,
                     "request_timeout_ms": 10000}
        self.producers, self.consumer_, self.admin_, self.position, self.members = {}, None, None, {}, {}

    def hello(self):
        return {"client": "kafka-python", "version": kafka.__version__, "caps": {"null_headers": False}}

    def producer(self, codec, acks, idempotent, batch_bytes, max_request, delivery_ms):
        key = (codec, acks, idempotent, batch_bytes, max_request, delivery_ms)
        if key not in self.producers:
            self.producers[key] = KafkaProducer(
                **self.base, compression_type=None if codec == "none" else codec, acks="all" if acks == -1 else acks,
                enable_idempotence=idempotent, batch_size=batch_bytes, max_request_size=max_request, linger_ms=100,
                delivery_timeout_ms=delivery_ms)
        return self.producers[key]

    def produce(self, topic, records, codec="none", acks=-1, idempotent=False, batch_bytes=65536, max_request=1000000, delivery_ms=30000):
        producer = self.producer(codec, acks, idempotent, batch_bytes, max_request, delivery_ms)
        futures = [producer.send(topic, value=unb64(r["v"]), key=unb64(r["k"]), headers=[(n, unb64(v)) for n, v in r["h"]],
                                 partition=r["p"], timestamp_ms=r["ts"]) for r in records]
        producer.flush(delivery_ms / 1000 + 5)
        offsets = []
        for f in futures:
            try:
                offsets.append(-1 if acks == 0 else f.get(1).offset)
            except kafka.errors.KafkaError as e:
                raise ClientError(getattr(e, "errno", -1) or -1, repr(e)) from None
        return {"offsets": offsets}

    def consumer(self):
        if self.consumer_ is None:
            self.consumer_ = KafkaConsumer(**self.base, group_id=None, enable_auto_commit=False, auto_offset_reset="none",
                                           fetch_max_wait_ms=100, max_partition_fetch_bytes=4 << 20)
        return self.consumer_

    def consume(self, topic, p, at, count, timeout_ms, value=None):
        consumer, tp = self.consumer(), TopicPartition(topic, p)
        start = value
        if at == "continue":
            start = self.position[topic, p]
        elif at == "timestamp":
            start = self.time(topic, p, value)["offset"]
        consumer.assign([tp])
        if at == "earliest":
            consumer.seek_to_beginning(tp)
        elif at == "latest":
            consumer.seek_to_end(tp)
        else:
            consumer.seek(tp, start)
        out, deadline = [], time.monotonic() + timeout_ms / 1000
        position = consumer.position(tp)
        while len(out) < count and time.monotonic() < deadline:
            for r in consumer.poll(200, max_records=count - len(out)).get(tp, []):
                out.append(record(r.offset, r.timestamp, r.key, r.value, r.headers))
        self.position[topic, p] = out[-1]["o"] + 1 if out else position
        return {"records": out, "position": self.position[topic, p]}

    def offsets(self, topic, p):
        tp = TopicPartition(topic, p)
        return {"earliest": self.consumer().beginning_offsets([tp])[tp], "latest": self.consumer().end_offsets([tp])[tp]}

    def time(self, topic, p, ts):
        got = self.consumer().offsets_for_times({TopicPartition(topic, p): ts})[TopicPartition(topic, p)]
        return {"offset": -1 if got is None else got.offset}

    def admin(self):
        if self.admin_ is None:
            self.admin_ = KafkaAdminClient(**self.base)
        return self.admin_

    def create(self, topic, partitions, configs):
        self.admin().create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])

    def delete(self, topic):
        self.admin().delete_topics([topic])

    def configs(self, topic):
        got = self.admin().describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
        found = find_configs(got)
        if not found:  # this library drops the error of an unknown topic and answers nothing
            raise ClientError(3, f"no configs: {got}")
        return {"configs": found}

    def join(self, member, group, topics, protocol="classic", session_ms=6000):
        if protocol != "classic":
            raise Skip("kafka-python has the classic protocol only")
        base = {k: v for k, v in self.base.items() if k != "request_timeout_ms"}
        self.members[member] = KafkaConsumer(
            *topics, **base, group_id=group, client_id=member, enable_auto_commit=False, auto_offset_reset="earliest",
            session_timeout_ms=session_ms, heartbeat_interval_ms=500, fetch_max_wait_ms=100)

    def take(self, member, count, timeout_ms):
        consumer, out, deadline = self.members[member], [], time.monotonic() + timeout_ms / 1000
        while time.monotonic() < deadline and (count == 0 or len(out) < count):
            for records in consumer.poll(100, max_records=max(1, count - len(out))).values():
                out += [[r.topic, r.partition, r.offset] for r in records]
        return {"records": out, "assigned": sorted([a.topic, a.partition] for a in consumer.assignment())}

    def commit(self, member):
        consumer = self.members[member]
        consumer.commit()
        return {"offsets": sorted([a.topic, a.partition, consumer.committed(a)] for a in consumer.assignment()
                                  if consumer.committed(a) is not None)}

    def leave(self, member):
        self.members.pop(member).close()

    def metadata(self, topic):
        got = self.admin().describe_topics([topic])
        return {"brokers": [], "partitions": len(got[0]["partitions"])}


def find_configs(answer):
    """name → value, out of whatever nesting this version of the library gives."""
    out = {}

    def walk(x):
        if isinstance(x, dict):
            if "name" in x and "value" in x:
                out[x["name"]] = x["value"]
                return
            for name, v in x.items():
                if isinstance(v, dict) and "value" in v and isinstance(name, str):
                    out[name] = v["value"]
                else:
                    walk(v)
        elif isinstance(x, (list, tuple)):
            for v in x:
                walk(v)
    walk(answer)
    return out


serve(Driver(sys.argv[1]))
