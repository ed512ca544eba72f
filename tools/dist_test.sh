#!/usr/bin/env bash
# Evaluate with several processes. Usage: tools/dist_test.sh CONFIG CHECKPOINT NUM_PROCESSES [test.py's options]
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: $0 CONFIG CHECKPOINT NUM_PROCESSES [test.py's options]" >&2; exit 2; }
config=$1 checkpoint=$2 processes=$3
shift 3
. "$(dirname "$0")/dist_run.sh"
dist_run "$processes" test.py "$config" "$checkpoint" "$@"
