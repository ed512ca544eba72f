# Sourced by dist_train.sh and dist_test.sh. Usage: . dist_run.sh; dist_run NUM_PROCESSES TOOL [ARGUMENTS]
dist_run() {
    local processes=$1 tool=$2 port=${PORT:-29500}
    shift 2
    [[ $processes =~ ^([1-9][0-9]*|auto|cpu|gpu)$ ]] || {
        echo "$0: error: NUM_PROCESSES must be 1 or more, but is '$processes'" >&2
        exit 1
    }
    # on this machine, if it is the first, no other run may listen
    if [ "${NODE_RANK:-0}" = 0 ] && (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        echo "$0: error: port $port is in use, by another run perhaps; choose another: PORT=$((port + 1)) $0 ..." >&2
        exit 1
    fi
    torchrun --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --master_addr="${MASTER_ADDR:-127.0.0.1}" \
        --master_port="$port" --nproc_per_node="$processes" "$(dirname "$0")/$tool" "$@" --launcher pytorch
}
