#!/usr/bin/env bash
# Trains crystal-mini from nothing, exports it, measures it and writes golden.json. About 65 minutes on one core, and half
# an hour for the measurement.
#
#   model/train.sh               everything
#   model/train.sh evaluate      only the measurement, on the weights that are there
#   model/train.sh golden        only golden.json and golden-merged.json
#
# The Python environment lives in $XDG_CACHE_HOME/crystal-kv/model and is made anew when the lock file changes.
set -euo pipefail

folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$folder")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/crystal-kv
venv=$cache/model
weights=$cache/model-weights
lock=$folder/requirements.txt
export NODE=${NODE:-$root/node_modules/.bin/node}

if [[ ! -x $NODE ]]; then
  echo "train: $NODE is missing; run npm install first" >&2
  exit 1
fi

install() {
  if [[ -f $venv/lock ]] && cmp -s "$lock" "$venv/lock"; then return; fi
  echo "train: installing the Python environment in $venv"
  if command -v uv >/dev/null; then
    [[ -x $venv/bin/python ]] || uv venv --python '>=3.11' "$venv"
    uv pip install --python "$venv/bin/python" --requirement "$lock"
  else
    [[ -x $venv/bin/pip ]] || python3 -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --requirement "$lock"
  fi
  cp "$lock" "$venv/lock"
}

run() { "$venv/bin/python" -u -m "$@"; }

evaluate() { run train.evaluate "$@"; }
golden() {
  run reference
  run merge_reference
}

install
cd "$folder"
case ${1:-all} in
  all)
    rm -f "$weights"/stage-*.pt
    run train.train --weights "$weights"
    last=$(ls "$weights"/stage-*.pt | sort -V | tail -1)
    run train.export --weights "$last"
    evaluate --log training-log.jsonl
    golden
    ;;
  evaluate) evaluate "${@:2}" ;;
  golden) golden ;;
  *)
    sed -n '2,9p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
