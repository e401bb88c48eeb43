#!/usr/bin/env bash
# Makes .venv-clients/NAME from deploy/clients/NAME.txt and prints its interpreter: foreign clients that the
# tests run against the service, each with its own pins. A changed list installs again, an unchanged one costs nothing.
# Usage: bash deploy/client-env.sh NAME        e.g. `bash deploy/client-env.sh deepgram-7.17`
set -euo pipefail
cd "$(dirname "$0")/.."
name="${1:?usage: client-env.sh NAME}"
python="${BASE_PYTHON:-python3}"
pins="deploy/clients/$name.txt"
[ -f "$pins" ] || { echo "client-env: no $pins" >&2; exit 1; }
home=".venv-clients/$name"
stamp="$home/.ready-$(cksum <"$pins" | cut -d' ' -f1)"
mkdir -p .venv-clients
exec 9>".venv-clients/$name.lock"
flock 9
if [ ! -f "$stamp" ]; then
  rm -rf "$home"
  if "$python" -m uv --version >/dev/null 2>&1; then
    "$python" -m uv venv --quiet --python "$python" "$home" >&2
    "$python" -m uv pip install --quiet --python "$home/bin/python" -r "$pins" >&2
  else
    "$python" -m venv "$home" >&2
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check -r "$pins" >&2
  fi
  touch "$stamp"
fi
echo "$PWD/$home/bin/python"
