#!/bin/sh
# Writes the requirements of the container images, every file with its hashes: containers/requirements-*.txt.
# Only images are locked; who installs the package gets what fits his machine. Needs uv (it comes with the launcher).
set -eu

cd "$(dirname "$0")/.."
uv=${UV:-uv}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# What makes videos is left out of the image that only answers HTTP, with all it needs.
for package in torch diffusers transformers accelerate safetensors ftfy; do
    echo "$package; sys_platform == 'never'"
done >"$scratch/api.txt"
: >"$scratch/none.txt"
# The minor version that the tests and the measurements ran with; its wheels bring CUDA's libraries.
echo 'torch>=2.13,<2.14' >"$scratch/tested.txt"

lock() {
    name=$1 overrides=$2 source=$3
    shift 3
    "$uv" pip compile "$source" "$@" --override "$scratch/$overrides" --constraint "$scratch/tested.txt" --no-annotate --no-header \
        --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-emit-index-url --generate-hashes --quiet \
        --output-file "$scratch/$name.out"
    {
        echo "# Made by scripts/lock_containers.sh; not by hand."
        cat "$scratch/$name.out"
    } >"containers/requirements-$name.txt"
}

lock api api.txt pyproject.toml --extra ui --extra s3 --extra postgres
lock full none.txt pyproject.toml --extra ui --extra s3 --extra postgres --extra quant
lock runpod none.txt pyproject.toml --extra s3 --extra quant --extra runpod
lock build none.txt containers/build.in
