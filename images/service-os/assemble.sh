#!/bin/bash
# assemble.sh BASE AGENT OUT: the initrd that boots: BASE (a folder that build.sh service-os printed) with AGENT as /init.
# The kernel accepts archives one after the other, so a new agent costs the compression of the agent alone, and that once
# per digest of it ($HOSTLER_CACHE/agents).
. "$(dirname "$0")/../lib.sh"
need cpio zstd sha256sum

[[ $# -eq 3 ]] || die "usage: assemble.sh BASE AGENT OUT"
base=$1/initrd.cpio.zst agent=$2 out=$3
[[ -s $base ]] || die "$1 is no service OS (no initrd.cpio.zst): run build.sh service-os and give the folder it prints"
[[ -s $agent ]] || die "no agent at $agent: build hostler-agent first"
! LC_ALL=C grep -qa -m1 'ld-linux' <(head -c 4096 "$agent") || die "$agent is not static (build with CGO_ENABLED=0): nothing in the initrd could load it"

mkdir -p "$cache/agents" 2>/dev/null && [[ -w $cache/agents ]] || die "cannot write $cache: run as root or set HOSTLER_CACHE to a folder of yours"
piece=$cache/agents/$(sha256sum <"$agent" | cut -c1-32).cpio.zst
if [[ ! -s $piece ]]; then
	tmp=$(mktemp -d "$cache/agents/tmp.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	mkdir "$tmp/root"
	install -m 755 "$agent" "$tmp/root/init"
	touch -d @0 "$tmp/root/init"
	(cd "$tmp/root" && echo init | cpio --quiet -o -H newc -R +0:+0 --reproducible) | zstd -q -12 -T0 -o "$tmp/piece"
	mv "$tmp/piece" "$piece"
	find "$cache/agents" -name '*.cpio.zst' -mtime +30 -delete
fi
touch "$piece"
cat "$base" "$piece" >"$out.$$"
truncate -s %4 "$out.$$" # whoever adds an uncompressed archive behind it (a boot session's token) needs it aligned
mv "$out.$$" "$out"
