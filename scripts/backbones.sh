#!/usr/bin/env bash
# The runs of docs/backbones.md and docs/pretraining.md on real data:
#
#   scripts/backbones.sh [RUN...]      all of them without a name
#
# DATA (default data) is the folder with ml-1m/ and amazon-games/, OUT (default runs/backbones) receives bases and
# runs, SEED (default 1) is the runs' seed. A base that is there is not made again; a run that is there is left alone.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly DATA=${DATA:-data} OUT=${OUT:-runs/backbones} SEED=${SEED:-1}
readonly FELLREC=${FELLREC:-target/release/fellrec}
readonly ALL=(ml-1m-bigrec ml-1m-recformer games-bigrec games-recformer lora)

# set KEY=VALUE...: the arguments that set them, into the array `arguments`
set_keys() {
    arguments=()
    for setting in "$@"; do arguments+=(--set "$setting"); done
}

# base NAME CONFIG DATASET SETTING...: pretrains unless it is there
base() {
    local name=$1 config=$2 dataset=$3
    shift 3
    set_keys "$@"
    "$FELLREC" pretrain --config "configs/$config.toml" --data "$DATA/$dataset" "${arguments[@]}" --out "$OUT/base-$name"
}

# run NAME CONFIG DATASET SETTING...: runs unless it has run
run() {
    local name=$1 config=$2 dataset=$3
    shift 3
    if [[ -f $OUT/$name/report.html ]]; then
        "$FELLREC" report "$OUT/$name"
        return
    fi
    set_keys "run.seed=$SEED" "$@"
    "$FELLREC" simulate --config "configs/$config.toml" --data "$DATA/$dataset" "${METHOD[@]}" "${arguments[@]}" \
        --out "$OUT/$name"
}

readonly WRITER=(
    model.backbone=bigrec model.hidden=128 model.ffn=344 model.heads=4 model.kv_heads=4 model.dropout=0
    generation.max_new_tokens=24
)
readonly MATCHER=(
    model.backbone=recformer model.hidden=128 model.ffn=256 model.heads=4 model.kv_heads=4
    recformer.window=32 recformer.table_traffic_mib=4096
)
readonly GAMES=("prompt.item=video game" "prompt.items=video games" prompt.verb=played prompt.max_items=5)
readonly WRITING=(
    prompt.loss=text training.batch=32 optimizer.learning_rate=2e-3 optimizer.warmup_steps=50 evaluation.batch=32
    'grounding.gammas=[0.0, 0.1, 0.3, 1.0, 3.0]'
)
METHOD=(--method fellrec+)

ml-1m-bigrec() {
    base ml-1m-bigrec study-ml-1m ml-1m "${WRITER[@]}" model.vocab=2048 pretrain.steps=1800 pretrain.learning_rate=2e-3
    run ml-1m-bigrec study-ml-1m ml-1m "${WRITER[@]}" "${WRITING[@]}" prompt.max_items=20 federation.rounds=5 \
        evaluation.validation_users=150 "model.checkpoint=$OUT/base-ml-1m-bigrec"
}
ml-1m-recformer() {
    local texts=(recformer.max_items=5 recformer.max_tokens=96)
    base ml-1m-recformer study-ml-1m ml-1m "${MATCHER[@]}" "${texts[@]}" pretrain.batch=64 pretrain.steps=800
    run ml-1m-recformer study-ml-1m ml-1m "${MATCHER[@]}" "${texts[@]}" federation.rounds=12 training.local_epochs=3 \
        training.batch=32 optimizer.learning_rate=1e-3 optimizer.warmup_steps=200 recformer.freeze_table_from=1 \
        evaluation.validation_users=300 evaluation.every=2 "model.checkpoint=$OUT/base-ml-1m-recformer"
}
games-bigrec() {
    base games-bigrec study-games amazon-games "${WRITER[@]}" "${GAMES[@]}" pretrain.steps=1400 \
        pretrain.learning_rate=2e-3
    run games-bigrec study-games amazon-games "${WRITER[@]}" "${GAMES[@]}" "${WRITING[@]}" federation.rounds=4 \
        evaluation.validation_users=80 evaluation.every=2 "model.checkpoint=$OUT/base-games-bigrec"
}
games-recformer() {
    local texts=(recformer.max_items=5 recformer.max_tokens=96 model.dropout=0)
    base games-recformer study-games amazon-games "${MATCHER[@]}" "${texts[@]}" pretrain.batch=128 pretrain.steps=1500
    run games-recformer study-games amazon-games "${MATCHER[@]}" "${texts[@]}" federation.rounds=4 training.local_epochs=1 \
        training.batch=64 optimizer.learning_rate=5e-5 optimizer.warmup_steps=50 recformer.freeze_table_from=1 \
        evaluation.validation_users=300 "model.checkpoint=$OUT/base-games-recformer"
}

# What a base brings to adapters, against a random one and against full training.
lora() {
    local METHOD=() from="model.checkpoint=$OUT/base-lora"
    local adapters=(model.trainable=lora optimizer.learning_rate=3e-3)
    base lora study-ml-1m ml-1m pretrain.steps=2000 pretrain.learning_rate=2e-3
    run lora-random study-ml-1m ml-1m "${adapters[@]}"
    run lora-base study-ml-1m ml-1m "${adapters[@]}" "$from"
    run full-random study-ml-1m ml-1m
    run full-base study-ml-1m ml-1m "$from"
}

[[ -x $FELLREC ]] || { echo "error: $FELLREC is not there, build it first: make demo" >&2 && exit 2; }
for name in "${@:-${ALL[@]}}"; do
    [[ " ${ALL[*]} " == *" $name "* ]] || { echo "error: unknown run $name, known: ${ALL[*]}" >&2 && exit 2; }
    "$name"
done
