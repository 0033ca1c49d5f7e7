"""Stands in for Kafka's kafka-acls.sh as far as librdkafka's tests call it: --add or --remove rules that allow or deny a topic or group.

Speaks the admin protocol through confluent-kafka, so that it works with any broker. Exit code 1 and the broker's words when refused.
"""
import argparse
import sys

from confluent_kafka import KafkaException
from confluent_kafka.admin import AclBinding, AclBindingFilter, AclOperation, AclPermissionType, AdminClient, ResourcePatternType, ResourceType

TIMEOUT_S = 30


def main():
    p = argparse.ArgumentParser(prog="kafka-acls.sh")
    p.add_argument("--bootstrap-server", required=True)
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--add", action="store_true")
    what.add_argument("--remove", action="store_true")
    p.add_argument("--force", action="store_true", help="do not ask; never asks anyway")
    for effect in ("allow", "deny"):
        p.add_argument(f"--{effect}-principal")
        p.add_argument(f"--{effect}-host", default="*")
    p.add_argument("--operation", action="append", default=[])
    p.add_argument("--topic")
    p.add_argument("--group")
    args = p.parse_args()
    kind, name = (ResourceType.TOPIC, args.topic) if args.topic else (ResourceType.GROUP, args.group)
    deny = args.deny_principal is not None
    principal, host = (args.deny_principal, args.deny_host) if deny else (args.allow_principal, args.allow_host)
    effect = AclPermissionType.DENY if deny else AclPermissionType.ALLOW
    rules = [(AclBinding if args.add else AclBindingFilter)(kind, name, ResourcePatternType.LITERAL, principal, host, AclOperation[o.upper()], effect)
             for o in args.operation or ["All"]]
    admin = AdminClient({"bootstrap.servers": args.bootstrap_server})
    try:
        for future in (admin.create_acls if args.add else admin.delete_acls)(rules, request_timeout=TIMEOUT_S).values():
            future.result(TIMEOUT_S)
    except KafkaException as e:
        sys.exit(f"kafka-acls.sh: {e}")


if __name__ == "__main__":
    main()
