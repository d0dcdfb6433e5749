#!/bin/bash
# try.sh [bios|uefi]...: boots the tenant image in QEMU the way a node would after hand-off and says pass or fail.
# Each firmware gets a fresh copy of the disk, grown to 2 GiB, with a CIDATA partition at its end; checked are: SSH with
# the seed's key and the host key that the phone-home told, user data, grown root, a reboot that does nothing twice.
# Needs no root and no network but loopback. Exit 0: all passed. PRINT=1 shows the consoles.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
image=$("$here/../build.sh" --print-path tenant)
w=$(mktemp -d)
pids=()
cleanup() {
	for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
	rm -rf "$w"
}
trap cleanup EXIT
failed=0

check() { # check WHAT COMMAND...: one line, pass or fail
	local what=$1
	shift
	if "$@" >"$w/out" 2>&1; then
		echo "pass  $mode  $what"
	else
		failed=1
		echo "FAIL  $mode  $what: $(tail -3 "$w/out" | tr '\n' ' ')"
	fi
}

now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f s", b - a }'; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# listener: takes POSTs, refuses the first one (the image must try again), writes each body to a line of $w/home.
listener() {
	python3 - "$1" "$w/home" <<-'END' &
		import http.server, sys
		class H(http.server.BaseHTTPRequestHandler):
		    n = 0
		    def do_POST(self):
		        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
		        H.n += 1
		        self.send_response(503 if H.n == 1 else 200)
		        self.end_headers()
		        if H.n > 1:
		            open(sys.argv[2], "a").write(self.path + " " + body + "\n")
		    def log_message(self, *a):
		        pass
		http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
	END
	pids+=($!)
}

# seed_disk DISK: what imaging and hand-off do on a node: a bigger disk, the backup GPT at its end, a CIDATA partition.
seed_disk() {
	cp --sparse=always "$image/disk.raw" "$1" && truncate -s 2G "$1"
	sgdisk -e -n 9:-16M:0 -t 9:0700 -c 9:CIDATA "$1" >/dev/null
	local first
	first=$(sgdisk -i 9 "$1" | sed -n 's/First sector: \([0-9]*\).*/\1/p')
	mkdir -p "$w/seed"
	printf 'instance-id: i-%s\nlocal-hostname: box-%s\npublic-keys:\n  - %s\n' "$mode" "$mode" "$(cat "$w/key.pub")" >"$w/seed/meta-data"
	printf '#cloud-config\nphone_home:\n  url: http://10.0.2.2:%s/home/%s?t=1\n' "$home_port" "$mode" >"$w/seed/vendor-data"
	if [[ $mode == bios ]]; then # a script with DHCP by default; the other way round under UEFI
		printf '#!/bin/sh\necho "ran as $(id -un)" >>/root/user-data-ran\n' >"$w/seed/user-data"
		rm -f "$w/seed/network-config"
	else
		cat >"$w/seed/user-data" <<-'END'
			#cloud-config
			write_files:
			  - path: /root/conf
			    permissions: '0600'
			    content: |
			      one
			      two
			runcmd:
			  - [sh, -c, 'echo "ran as $(id -un)" >>/root/user-data-ran']
			ntp: {enabled: true}
		END
		printf '{"version": 2, "ethernets": {"a": {"match": {"macaddress": "52:54:00:00:00:01"}, "addresses": ["10.0.2.40/24"], "gateway4": "10.0.2.2", "nameservers": {"addresses": ["10.0.2.3"]}}}}' >"$w/seed/network-config"
	fi
	truncate -s 16M "$w/cidata"
	mkfs.fat -n CIDATA "$w/cidata" >/dev/null
	mcopy -i "$w/cidata" "$w/seed"/* ::/
	dd if="$w/cidata" of="$1" bs=512 seek="$first" conv=notrunc status=none
}

# boot NAME ARG...: a machine with the node's disk; ends by itself or with this script.
# tb-size: with QEMU's default of 1 GiB of translated code a boot after a reset costs twice the CPU time.
boot() {
	local name=$1
	shift
	local print=/dev/null
	[[ -z ${PRINT-} ]] || print=/dev/stderr
	qemu-system-x86_64 -accel tcg,thread=multi,tb-size=64 -M q35,graphics=off -cpu max -m 1024 -display none -monitor none -serial stdio \
		-device virtio-rng-pci -drive file="$w/disk",format=raw,if=none,id=d,cache=unsafe -device nvme,serial=try,drive=d \
		-netdev user,id=n,hostfwd=tcp:127.0.0.1:"$ssh_port"-"$guest":22 -device virtio-net-pci,netdev=n,mac=52:54:00:00:00:01 \
		"$@" </dev/null > >(tee "$print" >"$w/$name.console") 2>&1 &
	qemu=$!
	pids+=($qemu)
}

in_guest() {
	ssh -q -i "$w/key" -p "$ssh_port" -o StrictHostKeyChecking=yes -o UserKnownHostsFile="$w/known" -o ConnectTimeout=5 -o BatchMode=yes root@127.0.0.1 "$@"
}
wait_for() { # wait_for SECONDS COMMAND...
	local end=$((SECONDS + $1))
	shift
	until "$@" 2>/dev/null >&2; do
		((SECONDS < end)) && kill -0 "$qemu" 2>/dev/null || return 1
		sleep 0.2
	done
}
decode() { python3 -c 'import sys, urllib.parse; print(urllib.parse.unquote(sys.argv[1]))' "$1"; }
field() { decode "$(grep "/home/$mode?" "$w/home" | tail -1 | sed 's/^[^ ]* //' | tr '&' '\n' | sed -n "s/^$1=//p")"; }
banner() { timeout 2 bash -c "exec 3<>/dev/tcp/127.0.0.1/$ssh_port && read -r -t 2 l <&3 && [[ \$l == SSH-* ]]"; }

firmware() {
	local args=() start
	if [[ $mode == uefi ]]; then
		cp /usr/share/OVMF/OVMF_VARS_4M.fd "$w/vars"
		args=(-drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd -drive if=pflash,format=raw,file="$w/vars")
	fi
	[[ $mode == bios ]] && guest=10.0.2.15 || guest=10.0.2.40
	seed_disk "$w/disk"
	start=$(now)
	boot "$mode" "${args[@]}"
	wait_for 300 banner && echo "time  $mode  power-on to SSH banner: $(since "$start")"
	check "phone-home arrives, after one refusal" wait_for 200 grep -qs "/home/$mode?t=1" "$w/home"
	[[ -s $w/home ]] || { tail -30 "$w/$mode.console" && return; }
	echo "time  $mode  power-on to phone-home: $(since "$start")"
	check "phone-home names the instance" test "$(field instance_id) $(field hostname) $(field user_data)" = "i-$mode box-$mode ok"
	echo "[127.0.0.1]:$ssh_port $(field pub_key_ed25519)" >"$w/known"
	check "SSH with the seed's key, host key as told" in_guest true
	check "fingerprint as told" test "$(ssh-keygen -lf <(field pub_key_ed25519) | cut -d' ' -f2)" = "$(field fingerprint_ed25519)"
	check "user data ran as root, once" test "$(in_guest cat /root/user-data-ran)" = "ran as root"
	check "root has grown to the seed partition" test "$(in_guest "df -BM --output=size / | tail -1 | tr -dc 0-9")" -gt 1700
	check "no failed unit" test -z "$(in_guest systemctl --failed --no-legend --plain)"
	if [[ $mode == uefi ]]; then
		check "write_files" test "$(in_guest 'stat -c %a /root/conf && cat /root/conf')" = $'600\none\ntwo'
		check "the log names what is not supported" in_guest grep -q "'not supported: ntp'" /var/log/firstboot.log
		check "name service is the seed's" in_guest "resolvectl dns | grep -q 10.0.2.3"
	fi
	# Under BIOS the seed is lost before the reboot, under UEFI it stays: either way what was applied stays as it is.
	[[ $mode == uefi ]] || in_guest "dd if=/dev/zero of=/dev/nvme0n1p9 bs=1M count=1 conv=fsync status=none"
	in_guest systemctl reboot || true
	start=$(now)
	sleep 3
	wait_for 300 in_guest true && echo "time  $mode  reboot to SSH login: $(since "$start")"
	check "after a reboot: nothing ran twice, same host key" test "$(in_guest cat /root/user-data-ran) $(wc -l <"$w/home")" = "ran as root 1"
	in_guest systemctl poweroff || true
	check "powers off" wait_gone 90
	rm -f "$w/home"
}
wait_gone() { for ((i = 0; i < $1 * 5; i++)); do kill -0 "$qemu" 2>/dev/null || return 0; sleep 0.2; done; return 1; }

ssh-keygen -q -t ed25519 -N '' -C try -f "$w/key"
home_port=$(free_port) ssh_port=$(free_port)
listener "$home_port"
for mode in "${@:-bios uefi}"; do
	for mode in $mode; do
		case $mode in
		bios | uefi) firmware ;;
		*) echo "usage: try.sh [bios|uefi]..." >&2 && exit 2 ;;
		esac
	done
done
exit $failed
