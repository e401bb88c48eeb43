#!/bin/sh
# Servers that a service of several machines uses, from Debian's packages, where they are missing:
# Postgres for the job store, Redis for what wakes its workers. The tests start their own; nothing is left running.
set -eu
missing=""
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
command -v redis-server >/dev/null 2>&1 || missing="$missing redis-server"
[ -z "$missing" ] && { echo "nothing is missing"; exit 0; }
# one at a time: several test processes may find the same package missing
exec 9>"${TMPDIR:-/tmp}/auricle-packages.lock"
flock 9
run() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
run apt-get update -q
# shellcheck disable=SC2086  # a list of package names
run env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
# Debian starts what it installs; the tests want none of it
command -v systemctl >/dev/null 2>&1 && run systemctl disable --now postgresql redis-server || true
