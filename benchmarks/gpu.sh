#!/usr/bin/env bash
# What a GPU gives, on a bare machine with PyTorch, transformers, peft and accelerate: the tests that need one, LoRA
# training and scoring on it (benchmarks/gpu.py), and the pocket model made anew in the time that is left.
#
#   [OUT=FOLDER] [WHEELS=FOLDER] [MINUTES=8] [PYTHON=python3] benchmarks/gpu.sh [--device cpu --tiny] [--peer PYTHON]
#
# WHEELS holds the packages that the machine lacks; with a network elsewhere, for Python 3.12:
#   python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 -d FOLDER \
#     datasets dill multiprocess river seqeval typer trl
# OUT (runs/gpu) gets tests.log, gpu.json, gpu.md, pocket.yaml and pocket.tar, the model.
set -euo pipefail
started=$SECONDS
cd "$(dirname "$0")/.."
out=${OUT:-runs/gpu}
python=${PYTHON:-python3}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
mkdir -p "$out"
export PYTHONPATH="$PWD/src:$site${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
if [[ -n ${WHEELS:-} ]]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl
fi
if ! "$python" -c 'from importlib.metadata import version; version("everlearn")' 2>/dev/null; then
    "$python" -m pip install -q --no-index --no-deps --no-build-isolation --target "$site" --upgrade .
fi
peer=()
if [[ " $* " != *" --peer "* ]] && "$python" -c 'import trl' 2>/dev/null; then
    peer=(--peer "$python")
fi
if [[ " $* " != *" --tiny "* ]]; then
    "$python" -m pytest -q -p no:cacheprovider -m gpu tests 2>&1 | tee "$out/tests.log" || echo "tests failed" >&2
fi
minutes=$("$python" -c "print(${MINUTES:-8} - ($SECONDS - $started) / 60)")
"$python" benchmarks/gpu.py --out "$out" --minutes "$minutes" "${peer[@]}" "$@"
