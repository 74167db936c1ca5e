#!/bin/sh
# Make a virtual environment with the project and its tools: bootstrap.sh PYTHON VENV
# On a bare Debian machine the package python3-venv is installed first, which takes root.
set -eu
python=$1
venv=$2

if ! "$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "make: $python with venv is needed: ask root for 'apt-get install python3-venv'" >&2
        exit 1
    fi
    echo "Installing python3-venv ..."
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 python3-venv >/dev/null
fi

echo "Installing OpenBITS into $venv ..."
"$python" -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -e '.[dev]'
