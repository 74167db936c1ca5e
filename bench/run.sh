#!/bin/sh
# The recipe of `make bench`: the whole suite, and the page of the documentation. PYTHON names the interpreter of
# the environment that OpenBITS is installed in. Options go to the suite (see --help).
set -eu
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" -m bench "$@"
