#!/usr/bin/env bash
# The servers that tests start, on Debian as root: installs those that are missing, and starts none of them.
set -euo pipefail

PATH="$PATH:/usr/sbin"
missing=()
# need PACKAGE FILE: a program on the PATH, whose name may end in a version, or a path.
need() {
  if [[ $2 == /* ]]; then [[ -e $2 ]] && return; else compgen -c "$2" | grep -qE "^$2[0-9.]*$" && return; fi
  missing+=("$1")
}
need redis-server redis-server
need mariadb-server-core mariadbd
# Without it mariadb-install-db does not run.
need mariadb-client-core my_print_defaults
need php-fpm php-fpm
need fcgiwrap fcgiwrap
need tomcat10-common /usr/share/tomcat10/bin/bootstrap.jar
need nginx nginx
need curl curl
need dnsmasq-base dnsmasq
need chromium chromium
# For promtool.
need prometheus promtool

if ((${#missing[@]} == 0)); then
  echo 'servers for tests: all there'
elif ((EUID != 0)) || ! command -v apt-get >/dev/null; then
  echo "servers for tests: left out ${missing[*]}: only root on Debian can install them"
else
  # While a package is installed this forbids it to start its service.
  policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  log=$(mktemp)
  export DEBIAN_FRONTEND=noninteractive
  if { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    rm "$log"
    echo "servers for tests: installed ${missing[*]} in $SECONDS s"
  else
    # Tests of servers that are not there are left out, but not in CI.
    echo "servers for tests: left out ${missing[*]}: could not be installed, see $log" >&2
    if [[ ${CI:-} == true ]]; then exit 1; fi
  fi
fi

# Debian 12 has no package of Consul; tests say themselves if it is not there.
if consul=$(bash "$(dirname "$0")/consul.sh" 2>&1); then
  echo "servers for tests: Consul is ${consul##*$'\n'}"
else
  echo "servers for tests: left out consul: ${consul##*$'\n'}" >&2
  if [[ ${CI:-} == true ]]; then exit 1; fi
fi
