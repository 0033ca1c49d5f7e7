# Sourced by the two install.sh, which set $cache: packages of the system, and installing one after the other.
# shellcheck shell=bash

# packages PROGRAM-OR-FILE PACKAGE…: Debian's packages, unless the program (or the header, given as a path) is there
packages() {
  local wanted="$1"; shift
  there() { case "$wanted" in /*) [ -e "$wanted" ] ;; *) command -v "$wanted" >/dev/null ;; esac }
  there && return 0
  command -v apt-get >/dev/null || { echo "$wanted is missing and there is no apt-get"; return 1; }
  [ -n "${apt_updated:-}" ] || { apt-get update -qq >/dev/null 2>&1; apt_updated=1; }
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1
  there || { echo "$wanted cannot be installed (apt-get install $*)"; return 1; }
}

# install_each NAME…: runs install_NAME for each. A failure leaves its reason in $cache/NAME.skip, and the next one is tried.
install_each() {
  local one began
  for one in "$@"; do
    began=$SECONDS
    if "install_$one" > "$cache/$one.log" 2>&1; then
      rm -f "$cache/$one.skip"
      echo "installed $one ($((SECONDS - began)) s)"
    else
      { grep -v '^\s*$' "$cache/$one.log" | tail -3 | tr '\n' ' ' | sed 's#[a-z]*://[^ ]*##g' | cut -c1-300; } > "$cache/$one.skip"
      [ -s "$cache/$one.skip" ] || echo "install failed" > "$cache/$one.skip"
      echo "skipped $one: $(cat "$cache/$one.skip")"
    fi
  done
}
