#!/bin/sh
# What the image installs: everlearn with trackers, at the versions it was tested with, into a virtual environment.
#
#   docker/install.sh FOLDER        # FOLDER is new; PYTHON names another Python than python3
#   DRY_RUN=1 docker/install.sh FOLDER   # finds out what would be installed, and stops there
set -eu

folder=${1:?"install.sh: name the folder of the environment"}
source=$(cd "$(dirname "$0")/.." && pwd)
if [ -e "$folder" ]; then
    echo "install.sh: $folder exists; name a new folder" >&2
    exit 1
fi
"${PYTHON:-python3}" -m venv "$folder"
if [ -n "${DRY_RUN:-}" ]; then
    set -- --dry-run --quiet
else
    set -- --no-cache-dir
fi
"$folder/bin/pip" install --disable-pip-version-check "$@" -c "$source/constraints.txt" "$source[track]"
[ -n "${DRY_RUN:-}" ] || "$folder/bin/everlearn" --help >/dev/null
