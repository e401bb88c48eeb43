#!/usr/bin/env bash
# Prints the paths of prometheus and promtool; installs Debian's package where they are missing, without starting it.
# Usage: bash deploy/prometheus.sh
set -euo pipefail

fail() { printf 'prometheus: %s\n' "$1" >&2; exit 1; }
find_both() { command -v prometheus && command -v promtool; }

if ! find_both; then
  command -v apt-get >/dev/null || fail "not installed. Mend: install Prometheus by your system's package manager."
  as_root=""
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "not installed, and no right to install it. Mend: apt-get install prometheus, as root."
    as_root="sudo -n"
  fi
  { $as_root apt-get update -qq && $as_root env RUNLEVEL=1 apt-get install -y -qq --no-install-recommends prometheus; } >&2 ||
    fail "Debian's prometheus could not be installed. Mend: apt-get install prometheus"
  find_both
fi
