# shellcheck shell=bash
# What the scripts here share. Sourced by bash, from the root of the checkout.

# say TEXT: one line for the person who waits.
say() { printf '== %s\n' "$*" >&2; }

# die TEXT: say why not, and end.
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# may_install: whether packages can be installed without asking: root, and apt.
may_install() { [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; }

# apt_install PACKAGE...: install without questions; shows apt's output only if it fails.
apt_install() {
    local log
    log=$(mktemp)
    # Another apt may be at work (unattended upgrades on a fresh machine): wait for its lock.
    if DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 update >"$log" 2>&1 9>&- </dev/null &&
        DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@" \
            >>"$log" 2>&1 9>&- </dev/null; then
        rm -f "$log"
        return 0
    fi
    tail -n 15 "$log" >&2
    rm -f "$log"
    return 1
}

# engine_answers: whether a Docker Engine answers at DOCKER_HOST, or else at the default socket, within 10 s.
engine_answers() {
    "${PYTHON:-python3}" scripts/engine_ping.py
}
