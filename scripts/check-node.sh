#!/bin/sh
# Says clearly what is missing before npm is asked to install: Node 20 or newer and npm.
oldest=20
if ! version=$(node --version 2>/dev/null); then
  echo "Node $oldest or newer is needed, and there is none on the PATH" >&2
  exit 1
fi
major=${version#v}
major=${major%%.*}
if [ "$major" -lt "$oldest" ]; then
  echo "Node $oldest or newer is needed, $(command -v node) is $version" >&2
  exit 1
fi
if ! command -v npm >/dev/null; then
  echo "npm is needed, and there is none on the PATH" >&2
  exit 1
fi
