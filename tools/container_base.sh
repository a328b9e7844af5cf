#!/usr/bin/env bash
# Make a base for the images out of Debian's packages alone, where no image registry can be reached:
#   container_base.sh FOLDER     writes FOLDER/base.tar and FOLDER/Dockerfile, to be built as an image
# It stands in for python:*-slim: Debian of this machine's release, with its Python, without
# documentation. Needs mmdebstrap. Where Debian's packages come from is this machine's own setting.
set -euo pipefail
folder=${1:?usage: container_base.sh FOLDER}
command -v mmdebstrap >/dev/null || { echo "mmdebstrap is missing: apt-get install mmdebstrap" >&2; exit 1; }
# shellcheck disable=SC1091
release=$(. /etc/os-release && echo "${VERSION_CODENAME:?}")
sources=()
for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list.d/ubuntu.sources /etc/apt/sources.list; do
    [ -s "$file" ] && { sources=("$file"); break; }
done
mkdir -p "$folder"
if [ ! -s "$folder/base.tar" ]; then
    mmdebstrap --quiet --format=tar --variant=minbase --include=ca-certificates,python3 \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        "$release" "$folder/base.part" "${sources[@]}"
    mv "$folder/base.part" "$folder/base.tar"
fi
printf 'FROM scratch\nADD base.tar /\nCMD ["python3"]\n' >"$folder/Dockerfile"
