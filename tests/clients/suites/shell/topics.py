"""Stands in for Kafka's kafka-topics.sh as far as librdkafka's tests call it: --create, --alter, --delete of one topic.

Speaks the admin protocol through confluent-kafka, so that it works with any broker. Exit code 1 and the broker's words when refused.
"""
import argparse
import sys

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

TIMEOUT_S = 30


def main():
    p = argparse.ArgumentParser(prog="kafka-topics.sh")
    p.add_argument("--bootstrap-server", required=True)
    what = p.add_mutually_exclusive_group(required=True)
    for name in ("create", "alter", "delete"):
        what.add_argument(f"--{name}", action="store_true")
    p.add_argument("--topic", required=True)
    p.add_argument("--partitions", type=int, default=-1)
    p.add_argument("--replication-factor", type=int, default=-1)
    p.add_argument("--config", action="append", default=[])
    args = p.parse_args()
    admin = AdminClient({"bootstrap.servers": args.bootstrap_server})
    if args.create:
        config = dict(c.split("=", 1) for c in args.config)
        futures = admin.create_topics([NewTopic(args.topic, args.partitions, args.replication_factor, config=config)],
                                      request_timeout=TIMEOUT_S)
    elif args.alter:
        futures = admin.create_partitions([NewPartitions(args.topic, args.partitions)], request_timeout=TIMEOUT_S)
    else:
        futures = admin.delete_topics([args.topic], request_timeout=TIMEOUT_S)
    try:
        for future in futures.values():
            future.result(TIMEOUT_S)
    except KafkaException as e:
        sys.exit(f"kafka-topics.sh: {e}")


if __name__ == "__main__":
    main()
