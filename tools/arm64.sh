#!/bin/bash
# An arm64 Python with packages, and QEMU to run it on this processor, in a folder; needs no root, but Debian's apt.
#
#     tools/arm64.sh build/arm64 onnxruntime==1.32.0 numpy
#
# All of it is Debian 13's: ONNX Runtime does not start in the QEMU 7.2 of Debian 12.
set -euo pipefail
folder=$(realpath -m "$1"); shift
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
for tool in apt-get dpkg dpkg-deb; do
    command -v "$tool" > /dev/null || { echo "$tool is missing: this needs Debian, or a system made from it." >&2; exit 3; }
done
[ -f "$keyring" ] || { echo "$keyring is missing: apt-get install debian-archive-keyring" >&2; exit 3; }
here=$(dpkg --print-architecture)
pip=${PIP:-"python3 -m pip"}
mirror=${DEBIAN:-http://deb.debian.org/debian}

rm -rf "$folder"/{apt,qemu,qemu-aarch64,root,site}  # of a run before
mkdir -p "$folder"/apt/{lists,archives}/partial "$folder"/{qemu,root,site}
echo "deb [signed-by=$keyring] $mirror trixie main" > "$folder/apt/sources.list"
: > "$folder/apt/status"  # nothing is installed, so that apt names every package

fetch() {  # architecture, folder, packages: what they need besides comes with them
    local apt=(apt-get -qq -o "Dir::Etc::sourcelist=$folder/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::Lists=$folder/apt/lists" -o "Dir::State::status=$folder/apt/status"
        -o "Dir::Cache::archives=$folder/apt/archives" -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache="
        -o "APT::Architecture=$1" -o "APT::Architectures=$1" -o APT::Sandbox::User=root
        -o Debug::NoLocking=1)
    "${apt[@]}" update
    "${apt[@]}" install --yes --download-only --no-install-recommends "${@:3}"
    for package in "$folder"/apt/archives/*.deb; do
        dpkg-deb --extract "$package" "$2"
        rm "$package"
    done
}

fetch "$here" "$folder/qemu" qemu-user
mv "$folder/qemu/usr/bin/qemu-aarch64" "$folder"  # one of some thirty processors
rm -rf "$folder/qemu"
ln -sfn usr/lib "$folder/root/lib"  # where programs look for their loader
fetch arm64 "$folder/root" python3.13-minimal libpython3.13-stdlib libstdc++6
$pip install --quiet --disable-pip-version-check --upgrade --target "$folder/site" --only-binary :all: \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
    --python-version 3.13 "$@"
rm -rf "$folder/apt"
