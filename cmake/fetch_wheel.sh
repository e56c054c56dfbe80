#!/usr/bin/env bash
# fetch_wheel.sh PACKAGE VERSION SHA256 FOLDER: unpacks one PyPI wheel, checked against its hash, into FOLDER.
set -euo pipefail
package=$1 version=$2 hash=$3 folder=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 --implementation cp \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 -d "$work" "$package==$version"
wheel=$(echo "$work"/*.whl)
echo "$hash  $wheel" | sha256sum --check --quiet
mkdir -p "$folder.part"
python3 -m zipfile -e "$wheel" "$folder.part"
rm -rf "$folder"
mv "$folder.part" "$folder"
