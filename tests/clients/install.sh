#!/usr/bin/env bash
# Installs the unmodified Kafka clients that the tests use into tests/.cache, idempotently: an unchanged client is left alone.
#   install.sh [NAME…]      names: kcat python kafkajs java franz; default all
# A client that cannot be installed leaves its reason in tests/.cache/NAME.skip and is reported as skipped; this script then
# still exits 0. Versions are pinned in requirements.txt, kafkajs/package-lock.json, java/pom.xml and franz/go.sum.
set -uo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="$here/../.cache"
mkdir -p "$cache"
cache="$(cd "$cache" && pwd)"

# shellcheck source=installing.sh
. "$here/installing.sh"

# stamp NAME FILE…: whether NAME was installed from just these files
stamp() { local name="$1"; shift; [ "$(cat "$cache/$name.stamp" 2>/dev/null)" = "$(cat "$@" | cksum)" ]; }
seal() { local name="$1"; shift; cat "$@" | cksum > "$cache/$name.stamp"; }

install_kcat() { packages kcat kcat; }

install_python() {
  stamp python "$here/requirements.txt" && [ -x "$cache/python/bin/python" ] && return 0
  packages python3 python3 python3-venv || return 1
  if ! python3 -m venv --clear "$cache/python"; then
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null 2>&1
    python3 -m venv --clear "$cache/python" || return 1
  fi
  "$cache/python/bin/pip" install -q --disable-pip-version-check --only-binary :all: -r "$here/requirements.txt" || return 1
  seal python "$here/requirements.txt"
}

install_kafkajs() {
  stamp kafkajs "$here/kafkajs/package-lock.json" && [ -d "$cache/kafkajs/node_modules" ] && return 0
  packages node nodejs && packages npm npm || return 1
  rm -rf "$cache/kafkajs" && mkdir -p "$cache/kafkajs" || return 1
  cp "$here"/kafkajs/package.json "$here"/kafkajs/package-lock.json "$cache/kafkajs/"
  (cd "$cache/kafkajs" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) || return 1
  seal kafkajs "$here/kafkajs/package-lock.json"
}

install_java() {
  stamp java "$here/java/pom.xml" "$here/java/Driver.java" && [ -f "$cache/java/classes/Driver.class" ] && return 0
  packages javac default-jdk-headless && packages mvn maven || return 1
  rm -rf "$cache/java" && mkdir -p "$cache/java/classes" || return 1
  mvn -q -B -ntp -f "$here/java/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$cache/java/jars" || return 1
  javac -Xlint:-options -nowarn -cp "$cache/java/jars/*" -d "$cache/java/classes" "$here/java/Driver.java" || return 1
  seal java "$here/java/pom.xml" "$here/java/Driver.java"
}

install_franz() {
  stamp franz "$here/franz/go.mod" "$here/franz/go.sum" "$here/franz/main.go" "$here/franz/groups.go" && [ -x "$cache/franz" ] && return 0
  packages go golang-go || return 1
  (cd "$here/franz" && GOTOOLCHAIN=local CGO_ENABLED=0 go build -mod=readonly -o "$cache/franz" .) || return 1
  seal franz "$here/franz/go.mod" "$here/franz/go.sum" "$here/franz/main.go" "$here/franz/groups.go"
}

[ $# -gt 0 ] || set -- kcat python kafkajs java franz
install_each "$@"
