# shellcheck shell=bash
# What the image recipes share: the mirror as seen through a private apt, the key of a result, and its place in the cache.
# Sourced, never run. A recipe sets `recipe` and calls `publish`.
#
#   $HOSTLER_CACHE/apt/       lists of the mirror and what they resolved to (refreshed when older than a day)
#   $HOSTLER_CACHE/debs/      downloaded packages, by name and version
#   $HOSTLER_CACHE/images/    NAME-KEY folders, complete or absent; NAME is a link to the newest

set -euo pipefail
export LC_ALL=C

images=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${HOSTLER_CACHE:-/var/cache/hostler}
suite=bookworm

# host_mirror: the mirror that this machine's own apt has for Debian, without the /debian behind it; empty when it names none.
host_mirror() {
	cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
		grep -v '^ *#' | grep -oE 'https?://[^] ]+/debian/?( |$)' | head -n 1 | sed -E 's#/debian/? *$##' || true
}
mirror=${HOSTLER_MIRROR:-$(host_mirror)}

say() { echo "images: $*" >&2; }
die() { say "$*"; exit 1; }

# need TOOL...: stop with one line when a program is missing.
need() {
	local t missing=()
	for t in "$@"; do command -v "$t" >/dev/null || missing+=("$t"); done
	[[ ${#missing[@]} -eq 0 ]] || die "missing ${missing[*]}: run $images/deps.sh as root"
}

cache_ready() {
	mkdir -p "$cache"/{apt/state/lists/partial,apt/cache/archives/partial,apt/resolved,debs,images} 2>/dev/null && [[ -w $cache/images ]] ||
		die "cannot write $cache: run as root or set HOSTLER_CACHE to a folder of yours"
}

# A private apt: the host's own sources, state and locks stay out of it, so a result depends on the mirror alone.
# (-c is read after /etc/apt/apt.conf.d, so a proxy configured there still holds and everything below wins.)
apt_conf() {
	[[ -n $mirror ]] || die "this machine's apt names no Debian mirror: set HOSTLER_MIRROR to one (what stands before /debian)"
	local d=$cache/apt key=/usr/share/keyrings/debian-archive-keyring.gpg
	[[ -s $key ]] || die "missing $key: run $images/deps.sh as root"
	cat >"$d/sources.list.$$" <<-END
		deb [signed-by=$key] $mirror/debian $suite main non-free-firmware
		deb [signed-by=$key] $mirror/debian $suite-updates main non-free-firmware
		deb [signed-by=$key] $mirror/debian-security $suite-security main non-free-firmware
	END
	cmp -s "$d/sources.list.$$" "$d/sources.list" || rm -f "$d/fresh" # another mirror: its lists are not these
	mv "$d/sources.list.$$" "$d/sources.list"
	touch "$d/state/status"
	cat >"$d/apt.conf.$$" <<-END
		Dir::State "$d/state"; Dir::State::status "$d/state/status"; Dir::Cache "$d/cache";
		Dir::Cache::pkgcache "pkgcache.bin"; Dir::Cache::srcpkgcache "srcpkgcache.bin";
		Dir::Etc::sourcelist "$d/sources.list"; Dir::Etc::sourceparts "/dev/null"; Dir::Etc::preferencesparts "/dev/null"; Dir::Etc::preferences "/dev/null";
		APT::Architecture "amd64"; APT::Architectures { "amd64"; }; APT::Install-Recommends "false"; APT::Sandbox::User "root";
		Acquire::Languages "none"; Acquire::Retries "3"; Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
	END
	mv "$d/apt.conf.$$" "$d/apt.conf"
}

apt_get() { apt-get -q -c "$cache/apt/apt.conf" "$@"; }

# mirror_refresh [now]: fetch the lists when a day has passed (the mirror drops old versions), or at once.
# Without network the lists of yesterday do: what they name may still be in the cache.
mirror_refresh() {
	local d=$cache/apt
	exec 8>"$d/lock" && flock 8
	apt_conf
	if [[ ${1-} == now || -z $(find "$d/fresh" -mmin -1440 2>/dev/null) ]]; then
		say "reading package lists of $mirror"
		if apt_get update -o APT::Update::Error-Mode=any >"$d/update.log" 2>&1; then
			touch "$d/fresh"
		elif [[ -e $d/fresh ]]; then
			say "cannot reach $mirror, going on with lists of $(date -r "$d/fresh" +%F) (see $d/update.log)"
		else
			die "cannot read package lists of $mirror ($(grep -m1 -E '^(E|Err)' "$d/update.log" || tail -1 "$d/update.log")): check the network or set HOSTLER_MIRROR"
		fi
	fi
	exec 8>&-
}

# remember FUNCTION ARG...: its output, computed once per state of the lists (apt needs a second to read them).
remember() {
	local memo=$cache/apt/resolved/$1-$(echo "$*" | sha256sum | cut -c1-16)
	if [[ ! -s $memo || ! $memo -nt $cache/apt/fresh ]]; then
		"$@" >"$memo.$$" && [[ -s $memo.$$ ]] || die "the mirror's lists do not answer: $*"
		mv "$memo.$$" "$memo"
	fi
	cat "$memo"
}

# closure PACKAGE...: "name version" of everything an empty Debian would get for these packages.
closure() { apt_get -s install "$@" | awk '$1 == "Inst" { sub(/^\(/, "", $3); print $2, $3 }' | sort; }

# candidate PACKAGE...: "name version" of the packages alone, without what they depend on.
candidate() {
	apt-cache -c "$cache/apt/apt.conf" show --no-all-versions "$@" | awk '$1 == "Package:" { p = $2 } $1 == "Version:" { print p, $2 }'
}

# kernel META: "name version" of the real kernel package behind a meta package such as linux-image-cloud-amd64.
kernel() {
	candidate "$(apt-cache -c "$cache/apt/apt.conf" show --no-all-versions "$1" | sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p')"
}

# fetch_deb NAME VERSION: path of the package file, downloaded (and checked by apt against the signed lists) once.
fetch_deb() {
	local deb=$cache/debs/$1_${2//:/%3a}.deb tmp
	if [[ ! -s $deb ]]; then
		tmp=$(mktemp -d "$cache/debs/tmp.XXXXXX")
		(cd "$tmp" && apt_get download "$1=$2") >"$tmp/log" 2>&1 ||
			die "cannot download $1 $2 ($(grep -m1 '^E' "$tmp/log")): the mirror may have moved on, run again with HOSTLER_REFRESH=1"
		mv "$tmp"/*.deb "$deb" && rm -r "$tmp"
	fi
	echo "$deb"
}

# tools PACKAGE...: versions of host packages whose output ends up in an image.
tools() { dpkg-query -W "$@" 2>/dev/null || die "missing one of $*: run $images/deps.sh as root"; }

# publish NAME FILE...: standard input is what was resolved; NAME + hash of it, of lib.sh and of the recipe's files is the result.
# Builds by calling `build DIR` under a lock when the result is absent, and prints its folder.
publish() {
	local name=$1 key dir tmp
	shift
	key=$({ cat && cd "$images" && sha256sum lib.sh "$@"; } | sha256sum | cut -c1-16)
	dir=$cache/images/$name-$key
	if [[ -n ${PRINT_PATH-} ]]; then
		[[ -d $dir ]] || die "$name is not built yet: run $images/build.sh"
		echo "$dir" && return
	fi
	exec 9>"$cache/images/.$name.lock" && flock 9 # the second of two builders waits here and then finds the result
	if [[ ! -d $dir ]]; then
		say "building $name ($key)"
		SECONDS=0
		tmp=$(mktemp -d "$cache/images/.tmp-$name.XXXXXX")
		trap 'rm -rf "$tmp"' EXIT
		chmod 755 "$tmp"
		key=$key build "$tmp"
		mv -T "$tmp" "$dir" # complete or absent, never half
		trap - EXIT
		say "$name done in $SECONDS s, $(du -sh "$dir" | cut -f1)"
	fi
	ln -sfn "$name-$key" "$cache/images/$name.$$" && mv -T "$cache/images/$name.$$" "$cache/images/$name"
	# Results that nothing made current for a month are dropped; a rack that runs from an older one is long gone.
	touch "$dir"
	find "$cache/images" -mindepth 1 -maxdepth 1 -type d \( -name "$name-????????????????" -o -name ".tmp-$name.*" \) -mtime +30 -exec rm -rf {} +
	exec 9>&-
	echo "$dir"
}
