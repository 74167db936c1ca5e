#!/bin/sh
# Boot the machine of the tests with this checkout installed, and get a shell in it: boot-shell.sh [COMMAND...]
# Everything about it is gone when the shell ends. Takes root; see CONTRIBUTING.md.
set -eu
cd "$(dirname "$0")/.."
PYTHONPATH=tests exec "${PYTHON:-.venv/bin/python}" -m support.nspawn_shell "$@"
