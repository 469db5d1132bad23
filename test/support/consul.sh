#!/usr/bin/env bash
# A Consul agent for tests, without installing anything: Debian 11 is the last release with a package of it (1.8.7). An apt
# with a folder of its own reads that release's index and checks the archive's signature; the package is only unpacked.
# Needs no root, and leaves the packages and services of the system as they are.
#
# Prints the path of the program. CONSUL_FOLDER is where it is kept, by default in the user's cache.
set -euo pipefail

folder=${CONSUL_FOLDER:-${XDG_CACHE_HOME:-$HOME/.cache}/checkups-consul}
program=$folder/usr/bin/consul
if [[ -x $program ]]; then
  echo "$program"
  exit
fi

fail() {
  echo "consul for tests: $1" >&2
  exit 1
}
keys=/usr/share/keyrings/debian-archive-keyring.gpg
{ [[ -r $keys ]] && command -v apt-get dpkg-deb >/dev/null; } || fail 'only Debian has it'

mkdir -p "$folder"
apt=$(mktemp -d "$folder/apt.XXXXXX")
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt"/{lists,archives}/partial "$apt/unpacked"
touch "$apt/status"

# The mirror that this machine has its other packages from; --print-uris asks no server.
mirror=$(apt-get --print-uris update 2>/dev/null | grep -oPm 1 "^'\K[^']+/debian(?=/dists/)") || fail 'apt knows no mirror'
echo "deb [signed-by=$keys] $mirror bullseye main" >"$apt/sources.list"

cat >"$apt/apt.conf" <<END
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "$apt";
Dir::State::Lists "$apt/lists";
Dir::State::Status "$apt/status";
Dir::Cache "$apt";
Dir::Cache::Archives "$apt/archives";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "20";
Acquire::AllowInsecureRepositories "false";
APT::Get::AllowUnauthenticated "false";
// The user that root's apt would fetch as may not come into this folder.
APT::Sandbox::User "$(id -un)";
// Else an index that could not be fetched is a warning.
APT::Update::Error-Mode "any";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
END
# Read after the system's own configuration, which it overrules.
get() { apt-get -q --config-file "$apt/apt.conf" "$@"; }
cd "$apt"
{ get update && get download consul; } >&2 || fail 'apt could not fetch it'
dpkg-deb --extract consul_*.deb unpacked
unpacked/usr/bin/consul version >&2 || fail 'it does not run here'
# Whoever comes at the same time does the same: the last one to rename wins.
mkdir -p "$folder/usr/bin"
mv -f unpacked/usr/bin/consul "$program"
echo "$program"
