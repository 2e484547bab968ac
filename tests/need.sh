#!/bin/sh
# need.sh WHAT:PACKAGE... - see that commands and files are there; install what is missing on Debian.
#
# WHAT is the name of a command, or the path of a file (a pattern, if it lies in different places).
# Needs neither root nor network when everything is there. Services are not started.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

there() {
    # shellcheck disable=SC2086 # a pattern
    case $1 in
        /*) ls -d $1 >/dev/null 2>&1 ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

missing='' packages=''
for pair in "$@"; do
    there "${pair%:*}" && continue
    missing="$missing ${pair%:*}"
    packages="$packages ${pair##*:}"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "Please install what has$missing, which is missing (in Debian:$packages)." >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "Missing:$missing. As root: apt-get install$packages" >&2
    exit 1
fi

# Debian starts what it installs, unless this policy says no.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list
apt-get install -y --no-install-recommends $packages
