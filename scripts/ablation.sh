#!/usr/bin/env bash
# What each part of configs/cnn.yaml gives: short trainings with one part changed, judged on the validation images.
#   bash scripts/ablation.sh OUT
# Runs go to lightning_logs/ablation, their result.json to OUT/NAME.json; one that is there already counts as done.
# PYTHON chooses the interpreter, JOBS how many train side by side (default 2), each on THREADS threads (default 1).
set -euo pipefail
[[ $# == 1 ]] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
cd "$(dirname "$0")/.."
mkdir -p "$1"
export OUT=$1 PYTHON=${PYTHON:-python} OMP_NUM_THREADS=${THREADS:-1}

sgd="--model.optimizer torch.optim.SGD --model.optimizer.momentum 0.9 --model.optimizer.nesterov true"
sgd+=" --model.optimizer.weight_decay 0.0005 --model.optimizer.lr"
ema="--trainer.callbacks lightning.pytorch.callbacks.EMAWeightAveraging --trainer.callbacks.decay 0.97"

changes=( # NAME: OPTIONS
  "recipe:"
  "recipe-seed1: --seed_everything 1"
  "sgd: $sgd 0.4"
  "no-whitening: --model.net.whiten_px 0"
  "no-label-smoothing: --model.label_smoothing 0"
  "no-translation: --data.translate_px 0"
  "random-flip: --data.flip true"
  "no-dirac: --model.net.dirac false"
  "full-size: --data.image_sizes [32,32,32]"
  "averaged-weights: $ema"
  "trained-scales: --model.net.norm_scale true"
)

one() { # NAME: OPTIONS
  local name=${1%%:*} options=${1#*:} run
  run=lightning_logs/ablation/$name
  [[ -e $OUT/$name.json ]] && return
  rm -rf "$run"
  # shellcheck disable=SC2086 # the options are words
  "$PYTHON" -m cifar_lightning fit --config configs/cnn.yaml --trainer.max_epochs 3 --data.image_sizes '[20,24,32]' \
    $options --name ablation --version "$name" > /dev/null
  "$PYTHON" -m cifar_lightning validate --run "$run" 2>&1 | sed -n "s/^val on/$name, six views: val on/p"
  cp "$run/result.json" "$OUT/$name.json"
}
export -f one
printf '%s\0' "${changes[@]}" | xargs -0 -n 1 -P "${JOBS:-2}" bash -euo pipefail -c 'one "$1"' _
