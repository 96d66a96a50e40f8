#!/usr/bin/env bash
# Kills members of federations over nodes at random moments and compares what they come to with the simulation:
#
#   scripts/chaos.sh            KILLS=50 kills of each role in turn, in runs of 20 rounds with five kills each
#
# OUT (default runs/chaos) receives runs and table.md, SEED (default 1) draws the moments; FELLREC_NATS_SERVER is the
# broker. Ends with 1 if a run did not end, or ended in other metrics.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly KILLS=${KILLS:-50} OUT=${OUT:-runs/chaos} FELLREC=${FELLREC:-target/release/fellrec}
readonly BROKER=${FELLREC_NATS_SERVER:-nats-server} ROLES=(client-1 shard-0-0 aggregator supervisor broker shard-0-1 client-4)
readonly CONFIG=(--config demo --set federation.rounds=20 --set federation.restart_budget=100 --set runtime.compute_threads=2)
RANDOM=${SEED:-1}

# metrics RUN: what equal runs share, and nothing else: digests of all slices and the final test
metrics() {
    python3 - "$1/events.jsonl" <<'PYTHON'
import json, sys
for line in open(sys.argv[1]):
    event = json.loads(line)
    if event["event"] == "round_committed":
        print(event["slices"], sorted(event["absent"]))
    elif event["event"] == "run_finished":
        print(json.dumps(event["test"], sort_keys=True))
PYTHON
}

rm -rf "$OUT" && mkdir -p "$OUT"
"$FELLREC" simulate --quiet "${CONFIG[@]}" --out "$OUT/simulated" >"$OUT/simulated.log"
metrics "$OUT/simulated" >"$OUT/expected"

kills=0 runs=0 different=0
declare -A killed slowest
while ((kills < KILLS)); do
    run=$OUT/run-$runs
    "$FELLREC" up --quiet --json "${CONFIG[@]}" --shards 2 --nats-server "$BROKER" --out "$run" >"$run.events" 2>"$run.log" &
    up=$!
    for _ in 1 2 3 4 5; do
        sleep "$((RANDOM % 3)).$((RANDOM % 10))"
        kill -0 "$up" 2>/dev/null || break
        who=${ROLES[kills % ${#ROLES[@]}]}
        before=$(grep -c round_committed "$run.events" || true)
        if [[ -f $run/pids/$who ]] && kill -KILL "$(<"$run/pids/$who")" 2>/dev/null; then
            at=$(date +%s%N)
            while (($(grep -c round_committed "$run.events" || true) <= before)) && kill -0 "$up" 2>/dev/null; do
                sleep 0.02
            done
            took=$((($(date +%s%N) - at) / 1000000))
            killed[$who]=$((${killed[$who]:-0} + 1))
            ((took > ${slowest[$who]:-0})) && slowest[$who]=$took
            ((kills += 1))
        fi
    done
    if ! wait "$up" || ! diff <(metrics "$run/nodes/supervisor") "$OUT/expected" >"$run.diff"; then
        echo "run $runs: not as the simulation, see $run.log and $run.diff" >&2
        ((different += 1))
    fi
    ((runs += 1))
done

{
    echo "| killed with SIGKILL | times | longest until the next commit |"
    echo "|---|---|---|"
    for who in "${ROLES[@]}"; do
        echo "| $who | ${killed[$who]:-0} | $((${slowest[$who]:-0} / 1000)).$(((${slowest[$who]:-0} % 1000) / 100)) s |"
    done
    echo
    echo "$kills kills in $runs runs, $different of them with other metrics than the simulation."
} | tee "$OUT/table.md"
((different == 0))
