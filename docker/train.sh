#!/bin/bash
# Begins the run of a recipe, or goes on with it: train.sh RECIPE N_GPUS
set -euo pipefail

name=$(basename "$1" .yaml)
out=checkpoints/$name
if [[ -e $out/recipe.yaml ]]; then
    command=(resume "$out")
else
    command=(run "$1" --out "$out")
fi
exec torchrun --nproc-per-node "$2" -m everlearn "${command[@]}" > >(tee -a "logs/$name.log") 2>&1
