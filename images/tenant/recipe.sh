#!/bin/bash
# The sample tenant image: a real Debian 12 (systemd, udev, networkd, sshd, apt) as a disk that boots under BIOS and UEFI.
#   disk.raw          GPT: ESP (UKI for UEFI, syslinux for BIOS), ext4 root found by PARTUUID, which grows to its disk
#   vmlinuz, cmdline  what kexec needs; the UKI and syslinux carry the same line. No initrd: NVMe and ext4 are in the kernel
#   image.json        what `hostler image pack` is told about it
#   VERSIONS          every package inside
# No loop device and no mount of images: mkfs.ext4 -d fills the root, mtools the ESP, sgdisk and dd put them together.
. "$(dirname "$0")/../lib.sh"
need mmdebstrap mkfs.ext4 mkfs.fat mmd mcopy syslinux sgdisk objcopy modprobe depmod
[[ -n ${PRINT_PATH-} || $EUID -eq 0 ]] || die "the tenant image needs root to be built (files of many owners, chroot)"

esp_mib=36 root_mib=448 # room for two copies of the kernel; for the system with some air, the rest comes by growing

# usr-is-merged: without it usrmerge comes, and with usrmerge a second perl of 45 MB.
packages=(usr-is-merged apt systemd systemd-sysv systemd-resolved udev openssh-server kmod iproute2 iputils-ping netbase procps)

# Not in the image: what no tenant misses. dpkg keeps to it in the running system too.
excluded=(/usr/share/{doc,man,info,locale,lintian,bug}/'*' /usr/lib/udev/hwdb.d/'*' /usr/lib/x86_64-linux-gnu/gconv/'*')

# Units that only cost time: an emulated CPU pays 0.2 s for each process. systemd-firstboot would ask questions on the console.
masked=(apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer systemd-firstboot.service systemd-hwdb-update.service
	systemd-pstore.service ldconfig.service remote-fs.target getty@tty1.service modprobe@.service kmod-static-nodes.service
	systemd-modules-load.service systemd-network-generator.service systemd-sysusers.service systemd-tmpfiles-setup-dev.service
	systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-journal-flush.service sys-kernel-debug.mount
	sys-kernel-tracing.mount proc-sys-fs-binfmt_misc.automount systemd-binfmt.service)

# Generators whose subject (LVM-like stacks, kernel command line oddities, SysV scripts) this image does not have.
# fstab and getty stay.
no_generator=(bless-boot cryptsetup debug gpt-auto hibernate-resume integritysetup rc-local run system-update sysv veritysetup)

uuid() { sha256sum <<<"$key $1" | sed -E 's/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-4\3-a\4-\5/'; }

debian_root() {
	local root=$1 x=$2 kernel_version=$3 p
	mmdebstrap --quiet --mode=root --variant=essential --format=directory --architectures=amd64 \
		--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
		--aptopt='APT::Install-Recommends "false"' "${excluded[@]/#/--dpkgopt=path-exclude=}" \
		--include="$(IFS=, && echo "${packages[*]}")" \
		"$suite" "$root" - <"$cache/apt/sources.list" >"$root.log" 2>&1 ||
		{ tail -20 "$root.log" >&2 && die "mmdebstrap failed, its last lines are above; a mirror that has moved on needs HOSTLER_REFRESH=1"; }
	cp -r "$images/tenant/files/." "$root/"
	chroot "$root" systemctl -q enable systemd-networkd firstboot-early firstboot-late
	chroot "$root" systemctl -q mask "${masked[@]}"
	mkdir -p "$root/etc/systemd/system-generators"
	for p in "${no_generator[@]}"; do ln -s /dev/null "$root/etc/systemd/system-generators/systemd-$p-generator"; done
	# Names can be resolved after SSH is up; Debian's unit stands before the network.
	sed -E 's/^Before=.*/Before=nss-lookup.target shutdown.target/; s/^After=.*/& ssh.service/; s/^WantedBy=.*/WantedBy=multi-user.target/' \
		"$root/lib/systemd/system/systemd-resolved.service" >"$root/etc/systemd/system/systemd-resolved.service"
	chroot "$root" systemctl -q reenable systemd-resolved
	# What the boot no longer checks is checked here (the package made host keys; they go away below).
	mkdir -p "$root/run/sshd"
	chroot "$root" sshd -t
	for p in early late; do chroot "$root" perl -c "/usr/lib/firstboot/$p" 2>"$root.log" || die "firstboot/$p: $(cat "$root.log")"; done

	: >"$root/etc/machine-id" # filled at first boot
	rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id"
	rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/{apt,debconf,ldconfig}/* "$root"/var/log/*.log "$root"/var/log/apt
	echo tenant >"$root/etc/hostname"
	ln -sf /run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
	echo "PARTUUID=$(uuid root) / ext4 rw,errors=remount-ro,x-systemd.growfs 0 0" >"$root/etc/fstab"

	depmod -b "$x" "$kernel_version"
	mkdir -p "$root/lib/modules/$kernel_version"
	cp "$x/lib/modules/$kernel_version"/modules.{builtin,builtin.modinfo,order} "$root/lib/modules/$kernel_version/"
	for p in $(sed 's/#.*//' "$images/tenant/modules"); do
		modprobe -d "$x" -S "$kernel_version" --show-depends "$p" || die "kernel $kernel_version does not know module $p (see tenant/modules)"
	done | awk '$1 == "insmod" { print $2 }' | sort -u | while read -r p; do
		install -D -m 644 "$p" "$root/${p#"$x"/}"
	done
	depmod -b "$root" "$kernel_version"
}

esp() {
	local out=$1 kernel=$2 cmdline=$3 w=$4 stub=/usr/lib/systemd/boot/efi/linuxx64.efi.stub
	truncate -s ${esp_mib}M "$out"
	mkfs.fat -F 32 -s 1 -n ESP -i "${key:0:8}" "$out" >/dev/null
	objcopy --add-section .osrel="$w/os-release" --change-section-vma .osrel=0x20000 \
		--add-section .cmdline="$cmdline" --change-section-vma .cmdline=0x30000 \
		--add-section .linux="$kernel" --change-section-vma .linux=0x2000000 "$stub" "$w/uki.efi"
	printf 'SERIAL 0 115200\nDEFAULT linux\nPROMPT 0\nTIMEOUT 1\nLABEL linux\n KERNEL vmlinuz\n APPEND %s\n' "$(cat "$cmdline")" >"$w/syslinux.cfg"
	mmd -i "$out" ::/EFI ::/EFI/BOOT
	mcopy -i "$out" "$w/uki.efi" ::/EFI/BOOT/BOOTX64.EFI
	mcopy -i "$out" "$kernel" ::/vmlinuz
	mcopy -i "$out" "$w/syslinux.cfg" ::/syslinux.cfg
	syslinux --install "$out"
}

build() {
	local out=$1 w=$1/w x=$1/w/kernel version disk=$1/disk.raw deb
	mkdir -p "$x"
	# shellcheck disable=SC2086 # name and version
	deb=$(fetch_deb $kernel)
	dpkg-deb -x "$deb" "$x"
	version=$(basename "$x"/boot/vmlinuz-*) && version=${version#vmlinuz-}
	grep -q '^CONFIG_BLK_DEV_NVME=y' "$x/boot/config-$version" && grep -q '^CONFIG_EXT4_FS=y' "$x/boot/config-$version" ||
		die "kernel $version needs an initrd to reach its root (NVMe or ext4 is a module): this recipe makes none"
	install -m 644 "$x/boot/vmlinuz-$version" "$out/vmlinuz"
	debian_root "$w/root" "$x" "$version"
	cp "$w/root/usr/lib/os-release" "$w/os-release"
	chroot "$w/root" dpkg-query -W >"$out/VERSIONS"
	echo "$kernel" >>"$out/VERSIONS"
	printf 'root=PARTUUID=%s rw rootwait console=tty0 console=ttyS0,115200' "$(uuid root)" >"$out/cmdline"

	esp "$w/esp" "$out/vmlinuz" "$out/cmdline" "$w"
	mkfs.ext4 -q -b 4096 -m 1 -L tenant -U "$(uuid fs)" -E hash_seed="$(uuid hash)" -J size=16 -d "$w/root" "$w/ext4" ${root_mib}M >/dev/null
	truncate -s $((1 + esp_mib + root_mib + 1))M "$disk"
	sgdisk -o -U "$(uuid disk)" -n 1:2048:+${esp_mib}M -t 1:ef00 -c 1:ESP -A 1:set:2 -u 1:"$(uuid esp)" \
		-n 2:0:+${root_mib}M -t 2:8304 -c 2:root -u 2:"$(uuid root)" "$disk" >/dev/null
	dd if="$w/esp" of="$disk" bs=1M seek=1 conv=notrunc,sparse status=none
	dd if="$w/ext4" of="$disk" bs=1M seek=$((1 + esp_mib)) conv=notrunc,sparse status=none
	dd if=/usr/lib/syslinux/mbr/gptmbr.bin of="$disk" bs=440 count=1 conv=notrunc status=none
	fallocate -d "$disk" 2>/dev/null || true # holes where the file system allows them; the reader counts zeros anyway
	cat >"$out/image.json" <<-END
		{"name": "debian-12", "arch": "amd64", "os": "Debian 12", "boot_modes": ["bios", "uefi"],
		 "kernel": "vmlinuz", "initrd": "", "cmdline": "$(cat "$out/cmdline")"}
	END
	rm -r "$w"
}

kernel=$(remember kernel linux-image-cloud-amd64)
inside=$(remember closure '?essential' usrmerge- "${packages[@]}")
mapfile -t files < <(cd "$images" && find tenant/files -type f | sort)
{ echo "$kernel" && echo "$inside" && tools mmdebstrap e2fsprogs dosfstools mtools syslinux syslinux-common systemd-boot-efi gdisk binutils kmod; } |
	publish tenant tenant/recipe.sh tenant/modules "${files[@]}"
