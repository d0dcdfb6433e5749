#!/bin/bash
# deps.sh: the one list of Debian packages that the images and the virtual rack need. Installs what is missing, and
# does nothing (in a few milliseconds) when all is there. Go is not in the list: Debian 12's is too old (see the README).
set -euo pipefail

packages=(
	# machines: emulator, firmware, boot loaders, BMC simulator and its client
	qemu-system-x86 ovmf ipxe ipxe-qemu openipmi ipmitool
	# the rack's network
	iproute2 nftables
	# images: file systems, partitions, boot loaders, archives, packages
	mmdebstrap debian-archive-keyring e2fsprogs dosfstools mtools gdisk syslinux syslinux-common systemd-boot-efi
	binutils cpio zstd xz-utils kmod
	# hostler-nvml and the stand-in of the GPU driver's library
	gcc libc6-dev
	# what tests look in with
	openssh-client curl etcd-client python3-minimal
)

installed=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "${packages[@]}" 2>/dev/null | sed -n 's/^ii  *//p') || true
missing=()
for p in "${packages[@]}"; do
	[[ $'\n'$installed$'\n' == *$'\n'$p$'\n'* ]] || missing+=("$p")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

get="apt-get install --no-install-recommends ${missing[*]}"
command -v apt-get >/dev/null || { echo "deps: missing packages (Debian 12 names), and no apt-get here to get them: ${missing[*]}" >&2 && exit 1; }
[[ $EUID -eq 0 ]] || { echo "deps: missing packages; as root: $get" >&2 && exit 1; }

echo "deps: installing ${missing[*]}" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() { DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >"$log" 2>&1 </dev/null; }
# The lists may be absent (fresh container) or old (the mirror drops old versions): a second try with new ones.
install || { apt-get update -q >"$log" 2>&1 && install; } ||
	{ echo "deps: cannot install ${missing[*]} ($(grep -m1 -E '^(E|Err)' "$log" || tail -1 "$log")); by hand: $get" >&2 && exit 1; }
