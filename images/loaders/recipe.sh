#!/bin/bash
# Boot loaders: Debian's iPXE, in the two forms that use the firmware's own network driver.
#   undionly.kpxe        BIOS (DHCP option 93: 0)
#   snponly-x86_64.efi   UEFI x86-64 (7, 9, and 16 for HTTP boot)
# arm64 (11, 19) is absent: Debian 12's ipxe package has x86 builds only.
. "$(dirname "$0")/../lib.sh"

build() {
	local x=$1/x deb
	# shellcheck disable=SC2086 # name and version
	deb=$(fetch_deb $ipxe)
	dpkg-deb -x "$deb" "$x"
	install -m 644 "$x/usr/lib/ipxe/undionly.kpxe" "$1/undionly.kpxe"
	install -m 644 "$x/usr/lib/ipxe/snponly.efi" "$1/snponly-x86_64.efi"
	rm -r "$x"
	{
		echo "$ipxe"
		echo "absent: arm64 EFI (not in Debian 12's ipxe package)"
		(cd "$1" && sha256sum undionly.kpxe snponly-x86_64.efi)
	} >"$1/VERSIONS"
}

ipxe=$(remember candidate ipxe)
echo "$ipxe" | publish loaders loaders/recipe.sh
