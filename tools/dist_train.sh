#!/usr/bin/env bash
# Train with several processes. Usage: tools/dist_train.sh CONFIG NUM_PROCESSES [train.py's options]
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 CONFIG NUM_PROCESSES [train.py's options]" >&2; exit 2; }
config=$1 processes=$2
shift 2
torchrun --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" --nproc_per_node="$processes" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
