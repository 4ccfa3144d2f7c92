# Installs the Debian packages named as arguments; runs as root.
export DEBIAN_FRONTEND=noninteractive

# Servers among the packages are to be traced by tests, not to run as services of this machine.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

install() {
    # Taking anything away is not this script's to decide.
    apt-get install -qy --no-install-recommends --no-remove \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null >&2
}

# The lists are fetched only where they do not know a package, or know one that is no longer there.
apt-cache show "$@" >/dev/null 2>&1 || apt-get update -q >&2
install "$@" || { apt-get update -q >&2 && install "$@"; }
