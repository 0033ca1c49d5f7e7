#!/bin/sh
exec "${PELTON_SUITE_PYTHON:-python3}" "$(dirname "$0")/../acls.py" "$@"
