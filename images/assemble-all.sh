#!/bin/bash
# assemble-all.sh AGENT OUT: builds what is missing and lays it out for hostlerd and the rack:
#   OUT/loaders, OUT/tenant   links into the cache
#   OUT/service-os/           vmlinuz, and the initrd with AGENT as /init
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[[ $# -eq 2 ]] || { echo "usage: assemble-all.sh AGENT OUT" >&2; exit 2; }
agent=$1 out=$2
mkdir -p "$out/service-os"
for what in loaders tenant; do
	dir=$("$here/build.sh" "$what" | tail -n 1)
	ln -sfn "$dir" "$out/$what"
done
base=$("$here/build.sh" service-os | tail -n 1)
"$here/service-os/assemble.sh" "$base" "$agent" "$out/service-os/initrd.cpio"
cmp -s "$base/vmlinuz" "$out/service-os/vmlinuz" || cp "$base/vmlinuz" "$out/service-os/vmlinuz"
