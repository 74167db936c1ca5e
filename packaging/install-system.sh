#!/bin/sh
# Install OpenBITS for all accounts of this machine, or remove it again.
#
#   sh packaging/install-system.sh               install or bring up to date
#   sh packaging/install-system.sh --uninstall   remove; jobs, configuration and account are kept
#
# The programs go to /opt/openbits (a virtual environment of the system's Python) with links in
# /usr/local/bin.  May be run again at any time.
set -eu
umask 022

prefix=/opt/openbits
links=/usr/local/bin
units=/etc/systemd/system
manuals=/usr/local/share/man
python=${PYTHON:-/usr/bin/python3}
checkout=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
packaging=$checkout/packaging

say() { printf 'install-system: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }
systemd_runs() { [ -d /run/systemd/system ] && has systemctl; }

programs() { (cd "$prefix/bin" && ls -d bits bitsd bitsadmin bits-server 2>/dev/null) || true; }

remove_links() {
    for name in bits bitsd bitsadmin bits-server; do
        case $(readlink "$links/$name" 2>/dev/null || true) in
            "$prefix"/*) rm -f "$links/$name" ;;
        esac
    done
}

install_packages() {
    missing=''
    "$python" -c 'import venv, ensurepip' 2>/dev/null || missing=python3-venv
    [ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
    [ -n "$missing" ] || return 0
    has apt-get || fail "please install:$missing"
    say "installing $missing"
    apt-get update -q
    # shellcheck disable=SC2086 - a list of names
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
}

install_programs() {
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$python is older than Python 3.11"
    say "installing the programs to $prefix"
    [ -x "$prefix/bin/python" ] || "$python" -m venv "$prefix"
    "$prefix/bin/python" -m pip install --quiet --disable-pip-version-check "$checkout"
    # The line above leaves a version of the same number alone; a checkout may have changed all the same.
    "$prefix/bin/python" -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$checkout"
    install -d "$links"
    remove_links
    for name in $(programs); do
        ln -sf "$prefix/bin/$name" "$links/$name"
    done
}

make_account() {
    if has systemd-sysusers; then
        install -D -m 644 "$packaging/openbits.sysusers.conf" /usr/lib/sysusers.d/openbits.conf
        systemd-sysusers /usr/lib/sysusers.d/openbits.conf
        return
    fi
    getent group bits-admin >/dev/null || groupadd --system bits-admin
    getent passwd openbits >/dev/null || useradd --system --user-group --no-create-home \
        --home-dir /var/lib/openbits --shell /usr/sbin/nologin \
        --comment 'Background Intelligent Transfer Service' openbits
    getent passwd bits-server >/dev/null || useradd --system --user-group --no-create-home \
        --home-dir /var/lib/bits-server --shell /usr/sbin/nologin \
        --comment 'OpenBITS server for uploads and downloads' bits-server
}

make_directories() {
    if has systemd-tmpfiles; then
        install -D -m 644 "$packaging/openbits.tmpfiles.conf" /usr/lib/tmpfiles.d/openbits.conf
        systemd-tmpfiles --create /usr/lib/tmpfiles.d/openbits.conf
    else
        install -d -m 755 -o openbits -g openbits /run/openbits
        install -d -m 700 -o openbits -g openbits /var/lib/openbits
        install -d -m 755 /etc/openbits
    fi
    install -d -m 755 /etc/openbits/policy.d
    install -m 644 "$packaging"/policy.d/*.toml.example /etc/openbits/policy.d/
    for name in bitsd bits-server; do
        if [ -e "$packaging/$name.toml" ] && [ ! -e "/etc/openbits/$name.toml" ]; then
            install -m 644 "$packaging/$name.toml" "/etc/openbits/$name.toml"
        fi
    done
}

# Print "source destination" for everything that is there to be copied.
documents() {
    for page in "$packaging"/*.[1-8] "$checkout"/docs/man/*.[1-8]; do
        [ -e "$page" ] && printf '%s %s\n' "$page" "$manuals/man${page##*.}/${page##*/}"
    done
    for file in "$packaging"/completion/*; do
        case ${file##*/} in
            bits.bash) printf '%s %s\n' "$file" /usr/local/share/bash-completion/completions/bits ;;
            bits.zsh) printf '%s %s\n' "$file" /usr/local/share/zsh/site-functions/_bits ;;
            bits.fish) printf '%s %s\n' "$file" /usr/local/share/fish/vendor_completions.d/bits.fish ;;
        esac
    done
    return 0
}

install_documents() {
    documents | while read -r source destination; do
        install -D -m 644 "$source" "$destination"
    done
}

start_service() {
    same_socket=no
    cmp -s "$packaging/openbits.socket" "$units/openbits.socket" && same_socket=yes
    install -D -m 644 "$packaging/openbits.service" "$units/openbits.service"
    install -D -m 644 "$packaging/openbits.socket" "$units/openbits.socket"
    # There for whoever wants it: to take files from others is not for an installation to decide.
    install -D -m 644 "$packaging/bits-server.service" "$units/bits-server.service"
    if systemd_runs; then
        systemctl daemon-reload
        systemctl try-restart bits-server.service
        systemctl enable --quiet openbits.socket openbits.service
        if [ $same_socket = no ] || ! systemctl --quiet is-active openbits.socket; then
            # Both in one step: a client that calls in between would start the service, under which its socket
            # cannot be replaced. Otherwise the socket stays, and calls wait in it.
            systemctl stop openbits.socket openbits.service
            systemctl start openbits.socket
        fi
        systemctl restart openbits.service
        say "the service runs: try 'bits list'"
    else
        say "installed; systemd does not run here, so start the service with 'bitsd --system'"
    fi
}

install_all() {
    install_packages
    install_programs
    make_account
    make_directories
    install_documents
    start_service
}

uninstall_all() {
    if systemd_runs; then
        systemctl disable --quiet --now openbits.service openbits.socket bits-server.service 2>/dev/null || true
    fi
    rm -f "$units/openbits.service" "$units/openbits.socket" "$units/bits-server.service"
    if systemd_runs; then
        systemctl daemon-reload
    fi
    rm -f /usr/lib/sysusers.d/openbits.conf /usr/lib/tmpfiles.d/openbits.conf
    documents | while read -r _ destination; do
        rm -f "$destination"
    done
    remove_links
    rm -rf "$prefix"
    say "removed; the jobs in /var/lib/openbits, their key /var/lib/openbits.key, /etc/openbits and the account openbits are still there"
}

[ "$(id -u)" = 0 ] || fail "this changes the machine for everybody: run it as root"
case "$*" in
    '') install_all ;;
    --uninstall) uninstall_all ;;
    *) fail "usage: install-system.sh [--uninstall]" ;;
esac
