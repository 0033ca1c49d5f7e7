#!/usr/bin/env bash
# Apache Kafka as the oracle: fetch its broker through Maven, format a data folder, run one node (broker and controller in one).
#   kafka-oracle.sh fetch                                fetch the jars into tests/.cache/oracle (idempotent)
#   kafka-oracle.sh start --port N --dir D [-X key=value]…   format D when new, then become the broker on 127.0.0.1:N
# The controller listens on N+1. Never used in CI: run.py --broker kafka calls it.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="$here/../.cache/oracle"
jars="$cache/jars"

fetch() {
  mkdir -p "$cache"
  local want; want="$(cksum < "$here/oracle/pom.xml")"
  [ -f "$cache/stamp" ] && [ "$(cat "$cache/stamp")" = "$want" ] && return 0
  command -v mvn >/dev/null || { echo "kafka-oracle: mvn is missing; run tests/clients/install.sh first" >&2; exit 3; }
  rm -rf "$jars"
  mvn -q -B -ntp -f "$here/oracle/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$jars" >&2
  echo "$want" > "$cache/stamp"
}

start() {
  local port="" dir=""; local extra=()
  while [ $# -gt 0 ]; do
    case "$1" in
      --port) port="$2"; shift 2 ;;
      --dir) dir="$2"; shift 2 ;;
      -X) extra+=("$2"); shift 2 ;;
      *) echo "kafka-oracle: unknown argument $1" >&2; exit 2 ;;
    esac
  done
  [ -n "$port" ] && [ -n "$dir" ] || { echo "usage: kafka-oracle.sh start --port N --dir D [-X key=value]…" >&2; exit 2; }
  fetch
  mkdir -p "$dir"
  local conf="$dir/server.properties"
  {
    echo "process.roles=broker,controller"
    echo "node.id=1"
    echo "controller.quorum.bootstrap.servers=127.0.0.1:$((port + 1))"
    echo "listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))"
    echo "advertised.listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))"
    echo "controller.listener.names=CONTROLLER"
    echo "inter.broker.listener.name=PLAINTEXT"
    echo "log.dirs=$dir/logs"
    echo "num.partitions=1"
    echo "default.replication.factor=1"
    echo "offsets.topic.replication.factor=1"
    echo "transaction.state.log.replication.factor=1"
    echo "transaction.state.log.min.isr=1"
    echo "auto.create.topics.enable=true"
    echo "group.initial.rebalance.delay.ms=0"
    for e in ${extra[@]+"${extra[@]}"}; do echo "$e"; done
  } > "$conf"
  local java=(java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile="$here/oracle/log4j2.properties" -cp "$jars/*")
  [ -f "$dir/logs/meta.properties" ] || "${java[@]}" kafka.tools.StorageTool format --standalone -t "$(uuid)" -c "$conf" >&2
  exec "${java[@]}" kafka.Kafka "$conf"
}

# A cluster id: 16 random bytes in URL-safe base64 without padding, as Kafka wants it.
uuid() { head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | tr -d '=\n'; }

case "${1:-}" in
  fetch) fetch ;;
  start) shift; start "$@" ;;
  *) sed -n '2,5p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
