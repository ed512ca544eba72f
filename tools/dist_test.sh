#!/usr/bin/env bash
# Evaluate with several processes. Usage: tools/dist_test.sh CONFIG CHECKPOINT NUM_PROCESSES [test.py's options]
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: $0 CONFIG CHECKPOINT NUM_PROCESSES [test.py's options]" >&2; exit 2; }
config=$1 checkpoint=$2 processes=$3
shift 3
torchrun --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" --nproc_per_node="$processes" \
    "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
