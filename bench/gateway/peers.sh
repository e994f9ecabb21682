#!/usr/bin/env bash
# Installs one of the gateways that ours is compared with, once, and prints the path of its program.
#
#   bench/gateway/peers.sh portkey|litellm|vllm-router|nginx
#
# They go to the cache folder, each into one of its own that its version names, and never into this package. nginx is
# the system's: apt-get install nginx-light.
set -euo pipefail

portkey=1.15.2
litellm=1.105.5
vllm_router=0.1.17

cache=${XDG_CACHE_HOME:-$HOME/.cache}/crystal-kv
mkdir -p "$cache"

python_peer() { # name version requirement program
  local folder=$cache/peer-$1-$2
  if [[ ! -f $folder/installed ]]; then
    echo "peers: installing $3 $2 into $folder" >&2
    rm -rf "$folder"
    "${PYTHON:-python3}" -m venv "$folder" >&2
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$3==$2" >&2
    touch "$folder/installed"
  fi
  echo "$folder/bin/$4"
}

exec 9>"$cache/peer-${1-}.lock"
flock 9
case ${1-} in
  portkey)
    folder=$cache/peer-portkey-$portkey
    if [[ ! -f $folder/installed ]]; then
      echo "peers: installing @portkey-ai/gateway $portkey into $folder" >&2
      rm -rf "$folder"
      npm install --silent --no-audit --no-fund --prefix "$folder" "@portkey-ai/gateway@$portkey" >&2
      touch "$folder/installed"
    fi
    echo "$folder/node_modules/@portkey-ai/gateway/build/start-server.js"
    ;;
  litellm) python_peer litellm "$litellm" 'litellm[proxy]' litellm ;;
  vllm-router) python_peer vllm-router "$vllm_router" vllm-router vllm-router ;;
  nginx)
    for candidate in nginx /usr/sbin/nginx; do
      if command -v "$candidate"; then exit 0; fi
    done
    echo 'peers: nginx is not installed (Debian: apt-get install nginx-light)' >&2
    exit 1
    ;;
  *)
    echo 'peers: name one of portkey, litellm, vllm-router, nginx' >&2
    exit 2
    ;;
esac
