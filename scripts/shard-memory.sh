#!/usr/bin/env bash
# What a shard's process holds at the most with 2, 20 and 200 clients, each client a process of its own (200 take some 10 GB):
#
#   scripts/shard-memory.sh            CLIENTS="2 20 200" OUT=runs/shard-memory, FELLREC_NATS_SERVER is the broker
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly CLIENTS=${CLIENTS:-2 20 200} OUT=${OUT:-runs/shard-memory} FELLREC=${FELLREC:-target/release/fellrec}
readonly BROKER=${FELLREC_NATS_SERVER:-nats-server}

echo "| clients | shard's peak resident | of it its own | a round |"
echo "|---|---|---|---|"
for clients in $CLIENTS; do
    run=$OUT/$clients
    rm -rf "$run" && mkdir -p "$run"
    "$FELLREC" up --quiet --config demo --clients "$clients" --shards 1 --nats-server "$BROKER" --out "$run" \
        --set federation.rounds=3 --set nodes.absence_secs=900 --set runtime.compute_threads=1 >"$run/log" 2>&1 &
    up=$! resident=0 own=0
    while kill -0 "$up" 2>/dev/null; do
        if pid=$(cat "$run/pids/shard-0-0" 2>/dev/null) && status=$(cat "/proc/$pid/status" 2>/dev/null); then
            now=$(awk '/^VmHWM/ { print $2 }' <<<"$status")
            anonymous=$(awk '/^RssAnon/ { print $2 }' <<<"$status")
            resident=${now:-$resident} own=$((anonymous > own ? anonymous : own))
        fi
        sleep 0.2
    done
    wait "$up"
    seconds=$(python3 -c '
import json, sys
rounds = [e["seconds"] for e in map(json.loads, open(sys.argv[1])) if e["event"] == "round_committed"]
print(f"{sum(rounds) / len(rounds):.1f} s")' "$run/nodes/supervisor/events.jsonl")
    echo "| $clients | $((resident / 1024)) MiB | $((own / 1024)) MiB | $seconds |"
done
