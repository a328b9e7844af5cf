#!/bin/sh
# Renews the hashed lock files of the images from pyproject.toml:
#   requirements/image.lock          both images
#   requirements/image-ort-gpu.lock  Dockerfile with WITH_ORT_GPU=1
# Usage: tools/lock_images.sh [--upgrade] [UV OPTION...]
# Without options versions stay as they are if they still fit; --upgrade takes the newest ones,
# "--upgrade-package NAME" that of one package. Needs python3 and a package index; uv is fetched into a
# scratch environment. The files hold no address of an index. Exit code 0: both files are written.
set -eu

case "${1:-}" in
    -h | --help)
        sed -n '2,/^set/{s/^# \{0,1\}//p;}' "$0"
        exit 0
        ;;
esac

cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv packaging

# lock NAME REQUIREMENTS OPTION...: writes requirements/NAME.lock
lock() {
    name=$1
    shift
    target=requirements/$name.lock
    # uv takes the versions that it finds in its output file, if any.
    if [ -f "$target" ]; then cp "$target" "$scratch/$name.lock"; fi
    "$scratch/venv/bin/uv" pip compile pyproject.toml --extra serverless --extra cuda --extra aws \
        --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
        --constraints requirements/image.constraints --overrides requirements/image.overrides \
        --only-binary :all: --output-file "$scratch/$name.lock" "$@" >/dev/null
    {
        echo "# Made by tools/lock_images.sh; do not edit. CPython 3.11 to 3.13 on Linux x86_64."
        "$scratch/venv/bin/python" tools/lock_filter.py <"$scratch/$name.lock"
    } >"$scratch/$name.filtered"
    cat "$scratch/$name.filtered" >"$target"
    echo "$target: $(grep -c == "$target") packages"
}

lock image "$@"
lock image-ort-gpu requirements/image-ort-gpu.in --overrides requirements/image-ort-gpu.overrides \
    --constraints requirements/image.lock "$@"
