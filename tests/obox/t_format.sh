#!/bin/sh
# The message object kept in vectors/ was written by the first version: every later one must read it, and so
# must a program that knows nothing but docs/format.md.
vectors=${top_srcdir:-../..}/tests/obox/vectors
build=${top_builddir:-.}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
key=u/bcb/vector/m/00000001-00000001
n=0
claim() {	# claim TEXT COMMAND...: is it so?
	text=$1
	shift
	n=$((n + 1))
	if "$@" >"$dir/out" 2>&1; then echo "ok $n - $text"; else echo "not ok $n - $text"; sed 's/^/# /' "$dir/out"; fi
}
read_alone() { "$build/tests/obox/read_message" "$vectors/master.key" "$1" "$2" >"$dir/message" && cmp "$dir/message" "$vectors/message.eml"; }
refuses() { ! "$build/tests/obox/read_message" "$vectors/master.key" "$1" "$2" >/dev/null; }
ctl() { "$build/culverctl" -c "$dir/conf" "$@"; }
library() {
	mkdir -p "$dir/state/keys" "$dir/state/store/u/bcb/vector/m" && cp "$vectors/master.key" "$dir/state/keys/" && chmod 700 "$dir/state/keys" &&
		chmod 600 "$dir/state/keys/master.key" && cp "$vectors/message.object" "$dir/state/store/$key" && mkdir -p "$dir/state/store/.culver" &&
		printf 'state_dir = "%s/state"\nrun_dir = "%s/run"\n' "$dir" "$dir" >"$dir/conf" &&
		ctl rebuild vector --force && ctl fetch vector INBOX 1 >"$dir/again" && cmp "$dir/again" "$vectors/message.eml"
}
echo 1..4
claim "a reader written from the document reads the vector" read_alone "$vectors/message.object" $key
claim "under another name it is refused" refuses "$vectors/message.object" u/bcb/vector/m/00000001-00000002
sed 's/CULM/CULN/' "$vectors/message.object" >"$dir/other"
claim "another magic is refused" refuses "$dir/other" $key
claim "culverctl rebuilds the user from the vector and reads it" library
