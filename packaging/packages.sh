# Debian packages, by what they are for, and how they are installed.  Sourced by quickstart and check.
# shellcheck shell=bash

packages_build="gcc make autoconf automake pkg-config libssl-dev libsodium-dev libzstd-dev libsqlite3-dev libconfuse-dev
 libjansson-dev libcrypt-dev libunistring-dev libseccomp-dev libcurl4-openssl-dev libexpat1-dev"
packages_quickstart="curl openssl"
packages_test="libs3-dev libmicrohttpd-dev libcmocka-dev clang libclang-rt-14-dev python3 curl openssl isync mutt fetchmail sqlite3 xz-utils
 dovecot-core dovecot-imapd dovecot-lmtpd dovecot-pop3d"
packages_stores="ceph-mon ceph-osd radosgw"	# a real S3 server; without it the tests against one are skipped

# install_packages NAME...: those that are missing, as root or through sudo, after saying which.
install_packages() {
	local missing=() p sudo=() policy=/usr/sbin/policy-rc.d made=0 rc=0
	for p; do
		dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
	done
	[ ${#missing[@]} -eq 0 ] && return 0
	echo "Installing Debian packages: ${missing[*]}"
	if [ "$(id -u)" -ne 0 ]; then
		command -v sudo >/dev/null || { echo "They must be installed by root, and there is no sudo: apt-get install ${missing[*]}" >&2; return 1; }
		sudo=(sudo)
	fi
	# services of these packages (Dovecot, for comparison) must not be started on public ports
	if [ ! -e "$policy" ]; then
		printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null && "${sudo[@]}" chmod 755 "$policy" && made=1
	fi
	"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || {
		"${sudo[@]}" apt-get update -qq &&
		"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || rc=1
	}
	[ $made = 1 ] && "${sudo[@]}" rm -f "$policy"
	[ $rc = 0 ] || echo "apt-get could not install them." >&2
	return $rc
}
