#!/bin/sh
# Install what the tests and benchmarks use of Debian and this machine lacks. Only root can; for
# anybody else the tests that need it are skipped and say so.
set -eu
missing=
for pair in nginx:nginx-light aria2c:aria2 curl:curl ip:iproute2 openssl:openssl mke2fs:e2fsprogs \
    setpriv:util-linux useradd:passwd ps:procps systemd-analyze:systemd man:man-db setfacl:acl mount:mount \
    update-ca-certificates:ca-certificates \
    systemd-nspawn:systemd-container mmdebstrap:mmdebstrap dconf:dconf-cli dbus-daemon:dbus-daemon \
    /usr/lib/python3/dist-packages/dbusmock:python3-dbusmock \
    krb5kdc:krb5-kdc kadmin.local:krb5-admin-server kinit:krb5-user apache2:apache2 squid:squid-openssl \
    /usr/lib/apache2/modules/mod_auth_gssapi.so:libapache2-mod-auth-gssapi \
    /etc/gss/mech.d/mech.ntlmssp.conf:gss-ntlmssp /usr/sbin/danted:dante-server; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "Not installed, so some tests will be skipped:$missing" >&2
    exit 0
fi
echo "Installing$missing ..."
apt-get update -qq
# shellcheck disable=SC2086 # a list of package names
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
