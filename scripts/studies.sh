#!/usr/bin/env bash
# The studies of docs/results.md:
#
#   scripts/studies.sh [STUDY...]      all of them without a name
#
# DATA (default data) is the folder with ml-1m/ and amazon-games/, OUT (default runs/studies) receives a folder a
# study. The same command again goes on where it was interrupted; a finished study only prints its table.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly DATA=${DATA:-data} OUT=${OUT:-runs/studies}
readonly FELLREC=${FELLREC:-target/release/fellrec}
readonly ALL=(k-means few-shot odd-client twenty age uniform per-user games long)

# FedAvg with the step size that validated best for it, beside the one that all methods share.
readonly TUNED=fedavg:optimizer.learning_rate=2e-3
readonly BASELINES=local,central,fedavg,$TUNED,fedavg-ft,fedprox,ditto
readonly FORMS=fellrec,fellrec-reference,fellrec-no-heating,fellrec-no-similarity,fellrec+
readonly FEW=local,central,fedavg,fellrec,fellrec+

# study NAME CONFIG DATASET METHODS SEEDS [SETTING...]; the data set - is the generator's
study() {
    local name=$1 config=$2 dataset=$3 methods=$4 seeds=$5 settings=()
    shift 5
    [[ $dataset == - ]] || settings=(--data "$DATA/$dataset")
    for setting in "$@"; do settings+=(--set "$setting"); done
    "$FELLREC" compare --config "configs/$config.toml" \
        --methods "$methods" --seeds "$seeds" "${settings[@]}" --out "$OUT/$name"
}

k-means() { study k-means study-ml-1m ml-1m "$BASELINES,$FORMS" 1,2,3; }
few-shot() {
    study few-shot study-ml-1m ml-1m "$FEW" 1,2,3 training.rows=1024 federation.rounds=16 evaluation.every=2
}
odd-client() { study odd-client odd-client - local,central,fedavg,fellrec,fellrec+ 1,2,3,4,5; }
twenty() {
    study twenty study-ml-1m ml-1m local,fedavg,fellrec,fellrec+ 1 clients.count=20 evaluation.validation_users=75
}
games() { study games study-games amazon-games local,fedavg,fellrec,fellrec+ 1; }
long() { study long study-ml-1m ml-1m local,central,fedavg,fellrec+ 1 federation.rounds=20; }
age() {
    study age study-ml-1m ml-1m local,fedavg,fellrec+ 1 clients.assignment=attribute clients.attribute=age
}
uniform() { study uniform study-ml-1m ml-1m local,fedavg,fellrec+ 1 clients.assignment=uniform; }
per-user() {
    study per-user study-ml-1m ml-1m fedavg,fellrec,fellrec+ 1 clients.assignment=per-user \
        federation.participation=0.02 federation.rounds=10 training.local_epochs=5 evaluation.every=10 \
        model.hidden=32 model.ffn=64 model.vocab=1024 optimizer.reset_each_round=true
}

[[ -x $FELLREC ]] || { echo "error: $FELLREC is not there, build it first: make demo" >&2 && exit 2; }
for name in "${@:-${ALL[@]}}"; do
    [[ " ${ALL[*]} " == *" $name "* ]] || { echo "error: unknown study $name, known: ${ALL[*]}" >&2 && exit 2; }
    "$name"
done
