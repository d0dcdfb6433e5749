#!/bin/bash
# The service OS without its agent: Debian's kernel and an initrd base that holds modules (and firmware) only.
#   vmlinuz, initrd.cpio.zst    what assemble.sh adds hostler-agent to, as /init
#   config                      the kernel's configuration
#   VERSIONS                    kernel, modules, firmware taken, firmware that Debian does not have
# Layout inside: /lib/modules/VERSION/ with modules.dep, modules.alias, modules.builtin (plain .ko, so finit_module
# takes them as they are), /lib/firmware, and empty mount points. The agent is static and brings the rest.
# FLAVOUR=cloud (default): small and quick to unpack. FLAVOUR=full: metal, with firmware for its network cards.
. "$(dirname "$0")/../lib.sh"
need modprobe depmod cpio zstd

flavour=${FLAVOUR:-cloud}
case $flavour in
cloud) meta=linux-image-cloud-amd64 firmware=() ;;
full) meta=linux-image-amd64 firmware=(firmware-misc-nonfree firmware-bnx2x) ;;
*) die "FLAVOUR=$flavour: want cloud or full" ;;
esac

# Without these the agent cannot do its work, however well the machine boots.
wanted_config=(KEXEC_FILE DEVTMPFS RD_ZSTD BLK_DEV_INITRD HW_RANDOM NET_NS)

build() {
	local out=$1 x=$1/x root=$1/root version list m f deb
	while read -r deb; do
		# shellcheck disable=SC2086 # name and version
		dpkg-deb -x "$(fetch_deb $deb)" "$x"
	done <<<"$packages"
	version=$(basename "$x"/boot/vmlinuz-*) && version=${version#vmlinuz-}
	install -m 644 "$x/boot/vmlinuz-$version" "$out/vmlinuz"
	install -m 644 "$x/boot/config-$version" "$out/config"
	for m in "${wanted_config[@]}"; do
		grep -q "^CONFIG_$m=y" "$out/config" || die "kernel $version has no CONFIG_$m"
	done

	mkdir -p "$root"/{dev,proc,sys,run,tmp,etc,lib/firmware,"lib/modules/$version"}
	cp "$x/lib/modules/$version"/modules.{builtin,builtin.modinfo,order} "$root/lib/modules/$version/"
	depmod -b "$x" "$version"
	list=$(awk -v f="$flavour" '$1 == f { print $2 }' "$images/service-os/modules")
	for m in $list; do
		modprobe -d "$x" -S "$version" --show-depends "$m" || die "kernel $version does not know module $m (see service-os/modules)"
	done | awk '$1 == "insmod" { print $2 }' | sort -u >"$out/files"
	while read -r f; do
		install -D -m 644 "$f" "$root/${f#"$x"/}"
		modinfo -F firmware "$f"
	done <"$out/files" | sort -u >"$out/firmware"
	depmod -b "$root" "$version"
	{
		echo "flavour $flavour"
		echo "$packages"
		sed 's|.*/|module |' "$out/files"
		take_firmware "$x/lib/firmware" "$root/lib/firmware" <"$out/firmware"
	} >"$out/VERSIONS"

	# Same input, same bytes: fixed times and owners, sorted names.
	find "$root" -exec touch -h -d @0 {} +
	(cd "$root" && find . -mindepth 1 | sort | cpio --quiet -o -H newc -R +0:+0 --reproducible) | zstd -q -19 -T0 -o "$out/initrd.cpio.zst"
	rm -r "$x" "$root" "$out/files" "$out/firmware"
}

# take_firmware FROM TO: the files named on standard input, with what their links point to; says what it took and what is missing.
take_firmware() {
	local name real
	while read -r name; do
		if [[ ! -e $1/$name ]]; then
			echo "firmware-absent $name"
			continue
		fi
		real=$(realpath --relative-to="$1" "$1/$name")
		install -D -m 644 "$1/$real" "$2/$real"
		if [[ $real != "$name" ]]; then
			mkdir -p "$2/$(dirname "$name")" && ln -sfr "$2/$real" "$2/$name"
		fi
		echo "firmware $name"
	done
}

packages=$(remember kernel "$meta")
[[ ${#firmware[@]} -eq 0 ]] || packages+=$'\n'$(remember candidate "${firmware[@]}")
{ echo "$packages" && tools kmod cpio zstd; } | publish "service-os-$flavour" service-os/recipe.sh service-os/modules
