#!/usr/bin/env bash
# Runs the plugin's tests on a vLLM of which there is no CPU build: that version's Python over the locked one's kernels.
#
#   scripts/vllm-overlay.sh VERSION [pytest argument ...]
#
# It needs 2 GB more than scripts/vllm-env.sh. What passes here was not run with that version's own kernels.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
version=${1:?usage: scripts/vllm-overlay.sh VERSION [pytest argument ...]}
shift
python=$("$root/scripts/vllm-env.sh")
overlay=${XDG_CACHE_HOME:-$HOME/.cache}/crystal-kv/vllm-overlay-$version
stamp=$overlay/made

if [[ ! -f $stamp ]]; then
  echo "vllm-overlay: making $overlay" >&2
  rm -rf "$overlay"
  mkdir -p "$overlay/wheel"
  "$python" -m pip download --quiet --no-deps --only-binary=:all: --dest "$overlay/wheel" "vllm==$version" >&2
  cp -r "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm" "$overlay/vllm"
  "$python" - "$overlay" <<'PYTHON'
import sys
import zipfile
from pathlib import Path

overlay = Path(sys.argv[1])
(wheel,) = (overlay / "wheel").glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    archive.extractall(overlay, [name for name in archive.namelist() if name.startswith("vllm/") and name.endswith(".py")])
wheel.unlink()
PYTHON
  # vLLM takes itself for a CPU build by the version of its distribution
  mkdir -p "$overlay/vllm-$version+cpu.dist-info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" >"$overlay/vllm-$version+cpu.dist-info/METADATA"
  touch "$stamp"
fi
cd "$root/vllm-plugin"
OMP_NUM_THREADS=1 PYTHONPATH=$overlay exec "$python" -m pytest "$@"
