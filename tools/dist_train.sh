#!/usr/bin/env bash
# Train with several processes. Usage: tools/dist_train.sh CONFIG NUM_PROCESSES [train.py's options]
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 CONFIG NUM_PROCESSES [train.py's options]" >&2; exit 2; }
config=$1 processes=$2
shift 2
. "$(dirname "$0")/dist_run.sh"
dist_run "$processes" train.py "$config" "$@"
