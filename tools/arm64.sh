#!/bin/bash
# An arm64 Python with packages, and QEMU to run it on this processor, in a folder; see debian.sh.
#
#     tools/arm64.sh build/arm64 onnxruntime==1.32.0 numpy
#
# QEMU is Debian 13's too: ONNX Runtime does not start in the QEMU 7.2 of Debian 12.
set -euo pipefail
folder=$1; shift
tools=$(dirname "$0")
pip=${PIP:-"python3 -m pip"}

"$tools/debian.sh" "$folder/root" arm64 python3.13-minimal libpython3.13-stdlib libstdc++6
"$tools/debian.sh" "$folder/qemu" amd64 qemu-user
mv "$folder/qemu/usr/bin/qemu-aarch64" "$folder"  # one of some thirty processors
rm -rf "$folder/qemu" "$folder/site"
$pip install --quiet --disable-pip-version-check --target "$folder/site" --only-binary :all: \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
    --python-version 3.13 "$@"
