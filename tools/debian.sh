#!/bin/bash
# Packages of Debian 13 with all that they need, unpacked in a folder; needs no root, but Debian's apt.
#
#     tools/debian.sh build/onnxruntime-cpp amd64 libonnxruntime-dev
#
# The folder is made anew. DEBIAN names another mirror.
set -euo pipefail
folder=$(realpath -m "$1") architecture=$2; shift 2
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=${DEBIAN:-http://deb.debian.org/debian}
for tool in apt-get dpkg-deb; do
    command -v "$tool" > /dev/null || { echo "$tool is missing: this needs Debian, or a system made from it." >&2; exit 3; }
done
[ -f "$keyring" ] || { echo "$keyring is missing: apt-get install debian-archive-keyring" >&2; exit 3; }
if [ -e "$folder" ] && ! [ -f "$folder/.debian" ]; then
    echo "$folder is there already, and was not made by this script." >&2
    exit 2
fi

rm -rf "$folder"
mkdir -p "$folder"/apt/{lists,archives}/partial
touch "$folder/.debian"
ln -s usr/lib "$folder/lib"  # where programs look for their loader
ln -s usr/lib64 "$folder/lib64"
echo "deb [signed-by=$keyring] $mirror trixie main" > "$folder/apt/sources.list"
: > "$folder/apt/status"  # nothing is installed, so that apt names every package
apt=(apt-get -qq -o "Dir::Etc::sourcelist=$folder/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::Lists=$folder/apt/lists" -o "Dir::State::status=$folder/apt/status"
    -o "Dir::Cache::archives=$folder/apt/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
    -o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture" -o APT::Sandbox::User=root
    -o Debug::NoLocking=1)
"${apt[@]}" update
"${apt[@]}" install --yes --download-only --no-install-recommends "$@"
for package in "$folder"/apt/archives/*.deb; do
    dpkg-deb --extract "$package" "$folder"
done
rm -rf "$folder/apt"
