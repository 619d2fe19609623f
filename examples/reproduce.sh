#!/usr/bin/env bash
# The paper's experiments from download to table: pre-training on MIMIC-IV-ECG, zero-shot and probes on the six tasks,
# report generation. Each step continues where it was interrupted. See docs/reproduce.md for disk, memory and hours.
#
#   examples/reproduce.sh WORK             # all of it; RECIPE=deri-reference for the released behaviour
#   examples/reproduce.sh WORK --small     # the same steps on simulated data, minutes on two cores
#
# Variables: RECIPE (deri), SEED (42), GPUS (processes of pre-training, 1), WORKERS (processes that read files, all
# cores), WRITER (distilgpt2), SPLITS (folder of the published split files; none: the package's own splits), RECORDS
# (of each simulated set, 240).
set -euo pipefail

work=${1:?usage: reproduce.sh WORK [--small]}
small=${2:-}
recipe=${RECIPE:-deri} seed=${SEED:-42} gpus=${GPUS:-1} writer=${WRITER:-distilgpt2}
workers=${WORKERS:-$(getconf _NPROCESSORS_ONLN)}
deri=${DERI:-deri}
data=$work/data stores=$work/stores runs=$work/runs
mkdir -p "$data" "$stores" "$runs"

train=("train.seed=$seed") report=() fractions=1,10,100 draws=5
if [[ $small == --small ]]; then
    recipe=${RECIPE:-demo} writer=${WRITER:-scratch} draws=2
    train+=(train.epochs=1)
    report+=(epochs=1)
fi

step() { printf '\n== %s\n' "$*"; }

for name in mimic-iv-ecg ptb-xl cpsc2018 csn; do
    step "$name: recordings"
    if [[ $small == --small ]]; then
        [[ -d $data/$name ]] || $deri simulate "$name" --records "${RECORDS:-240}" --seed 1 --out "$data/$name"
    else
        $deri download "$name" --to "$data/$name"
    fi
    step "$name: store"
    splits=()
    [[ -n ${SPLITS:-} && $name != mimic-iv-ecg ]] && splits=(--splits "$SPLITS")
    [[ -f $stores/$name/store.json ]] ||
        $deri prepare "$name" "$data/$name" --out "$stores/$name" --workers "$workers" ${splits[@]+"${splits[@]}"}
done

step "pre-training with recipe $recipe"
pretrain=(pretrain --data "$stores/mimic-iv-ecg" --out "$runs/pretrain" --recipe "$recipe" --resume "${train[@]}")
if ((gpus > 1)); then
    torchrun --nproc-per-node "$gpus" -m deri "${pretrain[@]}"
else
    $deri "${pretrain[@]}"
fi

step "six tasks: zero-shot, and probes on 1, 10 and 100 % of the labels"
$deri benchmark --out "$runs/benchmark" --model "$recipe=$runs/pretrain" \
    --data "$stores/ptb-xl" --data "$stores/cpsc2018" --data "$stores/csn" \
    --tasks ptbxl-super,ptbxl-sub,ptbxl-form,ptbxl-rhythm,cpsc2018,csn \
    --fraction "$fractions" --seeds "$draws" --seed "$seed"

step "report generation"
$deri report train --model "$runs/pretrain" --data "$stores/ptb-xl" --out "$runs/writer" --writer "$writer" --resume \
    ${report[@]+"${report[@]}"}
for split in val test; do
    $deri report generate --writer "$runs/writer" --data "$stores/ptb-xl" --split "$split" --out "$runs/reports-$split.parquet"
done
$deri report baselines --model "$runs/pretrain" --data "$stores/ptb-xl" --out "$runs/baselines.parquet"
$deri report evaluate "$runs/reports-test.parquet" "$runs/baselines.parquet" --out "$runs/reports.json"
$deri report classify --generated "$runs/reports-test.parquet" --generated-val "$runs/reports-val.parquet" \
    --data "$stores/ptb-xl" --task ptbxl-super --by labeller --out "$runs/reports-classes.json"

step "tables"
cat "$runs"/benchmark/*.md "$runs/reports.md"
