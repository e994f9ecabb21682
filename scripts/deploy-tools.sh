#!/usr/bin/env bash
# Makes the tools that test the chart, helm and kubeconform, from their Go modules, and prints the folder they are in.
# Each is made once for its version and kept in the cache folder; with both there it takes no time. It needs Go 1.21 or newer,
# which gets the Go that the tools ask for by itself, and about two minutes of two cores.
set -euo pipefail

helm=v3.19.0
kubeconform=v0.7.0

bin=${XDG_CACHE_HOME:-$HOME/.cache}/crystal-kv/deploy-tools-$helm-$kubeconform
if [[ ! -x $bin/helm || ! -x $bin/kubeconform ]]; then
  if ! command -v go >/dev/null; then
    echo 'deploy-tools: helm and kubeconform are made with Go, and there is no go on the PATH' >&2
    exit 1
  fi
  mkdir -p "$bin"
  exec 9>"$bin/lock"
  flock 9
  echo "deploy-tools: making helm $helm and kubeconform $kubeconform in $bin (once, some minutes)" >&2
  GOBIN=$bin go install "github.com/yannh/kubeconform/cmd/kubeconform@$kubeconform" >&2
  GOBIN=$bin go install "helm.sh/helm/v3/cmd/helm@$helm" >&2
fi
echo "$bin"
