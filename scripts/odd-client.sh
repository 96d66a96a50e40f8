#!/usr/bin/env bash
# Measures what learning together does to an odd client (docs/odd-client.md):
#
#   scripts/odd-client.sh [SEED...]         default: 1 2 3 4 5
#
# Every method runs on every seed, about ten seconds each; runs that are complete are not run again. Leaves
# run folders and odd-client.csv in runs/odd-client, prints the table and draws docs/images/odd-client.svg.
# FELLREC names another binary than the release build, RUNS another folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly RUNS=${RUNS:-runs/odd-client}
FELLREC=${FELLREC:-}
SEEDS=("$@")
((${#SEEDS[@]})) || SEEDS=(1 2 3 4 5)

# What a method sets beyond the preset; the rest of the mixing is the default: update, scaled.
readonly METHODS=(local fedavg published update-1 update-3 update-8 intended-3)
settings() {
    case $1 in
    local) echo mixing.rule=local ;;
    fedavg) echo mixing.rule=fedavg ;;
    published) echo mixing.similarity=parameters mixing.sharpness=1 heating.form=intended ;;
    update-*) echo "mixing.sharpness=${1#update-}" ;;
    intended-*) echo heating.form=intended "mixing.sharpness=${1#intended-}" ;;
    esac
}

if [[ -z $FELLREC ]]; then
    scripts/libtorch.sh cargo build --release
    FELLREC=target/release/fellrec
fi

for seed in "${SEEDS[@]}"; do
    for method in "${METHODS[@]}"; do
        run=$RUNS/$method-$seed
        if grep -q '"event":"run_finished"' "$run/events.jsonl" 2>/dev/null; then
            continue
        fi
        rm -rf "$run"
        sets=(--set "run.seed=$seed" --set checkpoint.fsync=false)
        for setting in $(settings "$method"); do
            sets+=(--set "$setting")
        done
        echo "$method, seed $seed" >&2
        log=$("$FELLREC" simulate --quiet --config configs/odd-client.toml --out "$run" "${sets[@]}" 2>&1) ||
            { echo "$log" >&2 && exit 1; }
    done
done

scripts/libtorch.sh cargo run --release --quiet --example odd_client_plot -- "$RUNS" docs/images
