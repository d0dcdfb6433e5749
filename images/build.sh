#!/bin/bash
# build.sh [--print-path] loaders|service-os|tenant|all: build what is missing, print the folder of each result.
# FLAVOUR=cloud|full chooses the service OS's kernel. HOSTLER_REFRESH=1 asks the mirror for newer packages now.
# --print-path builds nothing and touches no network; it fails when the result is not there.
. "$(dirname "$0")/lib.sh"

usage() { die "usage: build.sh [--print-path] loaders|service-os|tenant|all"; }

[[ ${1-} != --print-path ]] || { export PRINT_PATH=1; shift; }
[[ $# -eq 1 ]] || usage
case $1 in
loaders | service-os | tenant) set -- "$1" ;;
all) set -- loaders service-os tenant ;;
*) usage ;;
esac

[[ $(dpkg --print-architecture 2>/dev/null) == amd64 ]] || die "needs Debian on amd64 to build on"
need apt-get apt-cache dpkg-deb flock
cache_ready
if [[ -z ${PRINT_PATH-} ]]; then
	mirror_refresh ${HOSTLER_REFRESH:+now}
elif [[ ! -e $cache/apt/fresh ]]; then
	die "nothing built in $cache yet: run $images/build.sh $*"
fi
for image in "$@"; do
	bash "$images/$image/recipe.sh"
done
