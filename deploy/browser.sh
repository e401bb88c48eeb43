#!/usr/bin/env bash
# Prints the path of a Chromium; installs Debian's package where none is. For the tests of the page.
# Usage: bash deploy/browser.sh
set -euo pipefail

fail() { printf 'browser: %s\n' "$1" >&2; exit 1; }
find_browser() { command -v chromium || command -v chromium-browser || command -v google-chrome; }

# one at a time: several test processes may find the same package missing
exec 9>"${TMPDIR:-/tmp}/auricle-packages.lock"
flock 9
if ! find_browser; then
  command -v apt-get >/dev/null || fail "no Chromium. Mend: install it by your system's package manager."
  as_root=""
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "no Chromium, and no right to install it. Mend: apt-get install chromium, as root."
    as_root="sudo -n"
  fi
  { $as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends chromium; } >&2 ||
    fail "Debian's chromium could not be installed. Mend: apt-get install chromium"
  find_browser
fi
