#!/usr/bin/env bash
# Times `fit` on a GPU beside the speedruns it descends from, in turn, on the same images. NOT MEASURED YET.
#   bash scripts/gpu_speed.sh PEERS [OPTIONS OF FIT]
# PEERS is a folder for clones of cifar10-airbench and cifar10-speedrun; what is missing is cloned. PYTHON chooses the
# interpreter, RUNS how often each runs (default 10). Writes docs/results/bench/gpu-94.json and gpu-96.json.
set -euo pipefail
[[ $# -ge 1 ]] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
cd "$(dirname "$0")/.."
peers=$1; shift
python=${PYTHON:-python} runs=${RUNS:-10} out=${OUT:-docs/results/bench}
mkdir -p "$peers" && peers=$(realpath "$peers")

clone() { [[ -d $peers/$2 ]] || git clone --depth 1 "https://github.com/$1/$2" "$peers/$2"; }
clone KellerJordan cifar10-airbench
clone hiverge cifar10-speedrun

# Each trains 200 times for its mean; here one training of each, after its own warm-up, comes in turn with `fit`.
once() { sed 's/range(200)/range(1)/' "$peers/$1" > "$peers/once-$2.py"; }
once cifar10-airbench/airbench94_muon.py airbench94
once cifar10-airbench/airbench96_faster.py airbench96
once cifar10-speedrun/cifar10_speedrun.py hiverge

"$python" - "$peers/cifar10" <<'PYTHON'
"""Writes the images in the form that the peers cache theirs."""
import sys
from pathlib import Path

import torch

from cifar_lightning.data.datamodule import CIFAR10DataModule

data, out = CIFAR10DataModule(val_size=0), Path(sys.argv[1])
out.mkdir(exist_ok=True)
for stage, name in (("fit", "train"), ("test", "test")):
    data.setup(stage)
    split = getattr(data, name)
    images = split.images.permute(0, 2, 3, 1).contiguous()
    classes = [str(label) for label in range(10)]
    torch.save({"images": images, "labels": split.labels, "classes": classes}, out / f"{name}.pt")
PYTHON

beside() { # CONFIG OUTPUT OPTIONS OF FIT -- NAMES OF PEERS
  local config=$1 output=$2 options=() commands=()
  shift 2
  while [[ $1 != -- ]]; do options+=("$1"); shift; done
  shift
  for name in "$@"; do commands+=(--peer "bash -c 'cd $peers && $(command -v "$python") once-$name.py'"); done
  "$python" scripts/bench.py peer "$config" --config configs/overlays/gpu.yaml "${options[@]}" "${commands[@]}" \
    --rounds "$runs" --lines 12 --output "$out/$output"
}
# A GPU takes the whole step at once.
beside configs/cnn.yaml gpu-94.json --data.batch_size null "$@" -- airbench94 hiverge
beside configs/cnn96.yaml gpu-96.json "$@" -- airbench96
