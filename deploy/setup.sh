#!/usr/bin/env bash
# Makes .venv beside this repository with one extra of pyproject.toml: dev, serve, data, train, synth, monitor, whisper, trace.
# Usage: bash deploy/setup.sh [EXTRA]        e.g. `bash deploy/setup.sh serve` for a machine that only serves
set -euo pipefail
cd "$(dirname "$0")/.."
extra="${1:-dev}"
python="${BASE_PYTHON:-python3}"

fail() { printf 'setup: %s\n' "$1" >&2; exit 1; }
command -v "$python" >/dev/null || fail "no $python. Mend: install Python 3.11 (or set BASE_PYTHON)."
"$python" -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info < (3, 12)))' ||
  fail "$("$python" --version) found, 3.11 needed. Mend: BASE_PYTHON=python3.11 make setup."
command -v git >/dev/null || fail "git is missing. Mend: install git."
free_mb=$(df -Pm . | awk 'NR==2 {print $4}')
case "$extra" in dev | train) need_mb=9000 ;; *) need_mb=1500 ;; esac
[ -x .venv/bin/python ] || [ "$free_mb" -gt "$need_mb" ] ||
  fail "$free_mb MB free, about $need_mb MB needed. Mend: free some disk."

if [ ! -x .venv/bin/python ]; then
  echo "setup: virtual environment (.venv)"
  "$python" -m venv .venv
fi
py=.venv/bin/python
# On a terminal the installers show their progress; a log (CI, a pipe) would only be flooded by it.
quiet=--quiet
if [ -t 2 ] && [ -z "${CI:-}" ]; then quiet=; fi
"$py" -m uv --version >/dev/null 2>&1 || "$py" -m pip install $quiet --disable-pip-version-check -c deploy/constraints.txt uv
echo "setup: packages of extra '$extra' (dev and train: about 6 GB, one to five minutes)"
"$py" -m uv pip install $quiet --python "$py" --compile-bytecode -c deploy/constraints.txt -e ".[$extra]"
echo "setup: done; once per shell: . .venv/bin/activate (puts auricle and dvc on the path)"
