#!/bin/sh
# Installs the Debian packages that the lab needs, where this user may; the tests say what is missing otherwise.
set -u
wanted="qemu-system-x86 busybox-static xz-utils zstd binutils gdb e2fsprogs trace-cmd pahole"
missing=""
for package in $wanted; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "lab: not installed:$missing" >&2
    exit 0
fi
for attempt in 1 2 3; do
    # shellcheck disable=SC2086
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null && exit 0
    sleep 5
done
echo "lab: could not be installed:$missing" >&2
exit 0
