#!/usr/bin/env bash
# Installs the test suites that others wrote into tests/.cache/suites, idempotently: an unchanged suite is left alone.
#   install.sh [NAME…]      names: librdkafka kafka-python rdkafka; default all
# Sources come from the package registries at the versions below and are built as they are. A suite that cannot be installed
# leaves its reason in tests/.cache/suites/NAME.skip and is reported as skipped; this script then still exits 0.
set -uo pipefail
LIBRDKAFKA_PACKAGE="@confluentinc/kafka-javascript@1.10.1" # carries librdkafka 2.15.1 with its tests
KAFKA_PYTHON="kafka-python==3.0.12"
RDKAFKA="0.39.0"
JOBS="${PELTON_SUITE_JOBS:-2}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="$here/../../.cache/suites"
mkdir -p "$cache"
cache="$(cd "$cache" && pwd)"

# shellcheck source=../installing.sh
. "$here/../installing.sh"

# The Python environment of the suites: pytest, and confluent-kafka for the stand-ins of Kafka's shell scripts.
install_env() {
  local want; want="$(cksum < "$here/requirements.txt")"
  [ "$(cat "$cache/env.stamp" 2>/dev/null)" = "$want" ] && [ -x "$cache/env/bin/python" ] && return 0
  packages python3 python3 python3-venv || return 1
  if ! python3 -m venv --clear "$cache/env"; then
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null 2>&1
    python3 -m venv --clear "$cache/env" || return 1
  fi
  "$cache/env/bin/pip" install -q --disable-pip-version-check --only-binary :all: -r "$here/requirements.txt" || return 1
  echo "$want" > "$cache/env.stamp"
}

install_librdkafka() {
  install_env || return 1
  [ "$(cat "$cache/librdkafka.stamp" 2>/dev/null)" = "$LIBRDKAFKA_PACKAGE" ] && [ -x "$cache/librdkafka/tests/test-runner" ] && return 0
  packages npm npm && packages g++ g++ && packages make make && packages perl perl || return 1
  packages /usr/include/openssl/ssl.h libssl-dev && packages /usr/include/zlib.h zlib1g-dev || return 1
  packages /usr/include/zstd.h libzstd-dev && packages /usr/include/rapidjson/document.h rapidjson-dev || return 1
  rm -rf "$cache/unpack" && mkdir -p "$cache/unpack" || return 1
  (
    cd "$cache/unpack" && npm pack --silent "$LIBRDKAFKA_PACKAGE" && tar xzf ./*.tgz && cd package/deps/librdkafka || exit 1
    ./configure --disable-gssapi --disable-lz4-ext && make -j"$JOBS" libs && make -j"$JOBS" -C tests build || exit 1
    find . -name '*.o' -delete # not needed any more
    rm -rf "$cache/librdkafka" && mv "$cache/unpack/package/deps/librdkafka" "$cache/librdkafka"
  ) || return 1
  rm -rf "$cache/unpack"
  echo "$LIBRDKAFKA_PACKAGE" > "$cache/librdkafka.stamp"
}

install_kafka-python() {
  install_env || return 1
  local want; want="$KAFKA_PYTHON $(cksum < "$here/service.py")"
  [ "$(cat "$cache/kafka-python.stamp" 2>/dev/null)" = "$want" ] && [ -d "$cache/kafka-python" ] && return 0
  rm -rf "$cache/kafka-python" "$cache/unpack" && mkdir -p "$cache/unpack" || return 1
  "$cache/env/bin/pip" download -q --disable-pip-version-check --no-deps --no-binary kafka-python -d "$cache/unpack" "$KAFKA_PYTHON" || return 1
  tar xzf "$cache/unpack"/kafka*python*.tar.gz -C "$cache/unpack" && rm "$cache/unpack"/*.tar.gz || return 1
  mv "$cache/unpack"/kafka*python* "$cache/kafka-python" && rm -rf "$cache/unpack" || return 1
  # The package lacks two files of its repository: an empty one, and one that starts brokers, which is done outside here.
  touch "$cache/kafka-python/test/__init__.py"
  cp "$here/service.py" "$cache/kafka-python/test/service.py" || return 1
  echo "$want" > "$cache/kafka-python.stamp"
}

install_rdkafka() {
  [ "$(cat "$cache/rdkafka.stamp" 2>/dev/null)" = "$RDKAFKA" ] && [ -s "$cache/rdkafka/tests.list" ] && return 0
  command -v cargo >/dev/null || { echo "cargo is missing; install Rust 1.85 or newer"; return 1; }
  packages g++ g++ && packages make make && packages perl perl && packages /usr/include/zlib.h zlib1g-dev || return 1
  rm -rf "$cache/rdkafka" && mkdir -p "$cache/rdkafka/fetch/src" || return 1
  (
    cd "$cache/rdkafka/fetch" || exit 1
    printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\nrdkafka = "=%s"\n[workspace]\n' "$RDKAFKA" > Cargo.toml
    touch src/lib.rs
    cargo fetch -q || exit 1
    manifest="$(cargo metadata --format-version 1 | grep -oE '"[^"]*/rdkafka-'"$RDKAFKA"'/Cargo.toml"' | head -1 | tr -d '"')"
    [ -f "$manifest" ] || { echo "the sources of rdkafka $RDKAFKA were not found after cargo fetch"; exit 1; }
    cp -r "$(dirname "$manifest")" "$cache/rdkafka/crate" && chmod -R u+w "$cache/rdkafka/crate" || exit 1
    cd "$cache/rdkafka/crate" || exit 1
    printf '\n[workspace]\n' >> Cargo.toml # it lies inside another workspace here
    # Only the tests: the examples' dependencies stay out of it as far as cargo allows. One line for each test binary.
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR="$cache/rdkafka/target" cargo test -j"$JOBS" --tests --no-run --message-format json \
      | grep '"profile":{[^}]*"test":true' | grep -oE '"executable":"[^"]+"' | cut -d'"' -f4 > "$cache/rdkafka/tests.list"
    [ -s "$cache/rdkafka/tests.list" ]
  ) || return 1
  echo "$RDKAFKA" > "$cache/rdkafka.stamp"
}

[ $# -gt 0 ] || set -- librdkafka kafka-python rdkafka
install_each "$@"
