#!/bin/sh
# The simulator without and with each deliberate breakage (README.md).  CULVER_SIM_SEEDS: seeds without one (nightly:
# 100000); under CULVER_SLOW (sanitizers) few, and no breakages: those are questions to the checker.
sim=${top_builddir:-.}/tests/sim/culver-sim
slow=${CULVER_SLOW:-1}
n=0

result() {	# ok-or-not, text
	n=$((n + 1))
	echo "$1 $n - $2"
}

# name and within how many seeds it has to be caught, or (one world in thousands) among which
quick="ack-before-journal:60 epoch-not-raised:60 no-takeover:60 references-not-counted:120 shown-before-durable:60
	tail-not-rewritten:200 store-ignores-conditions:60 swap-overwrites:60 no-seal:300 modseq-goes-back:400 lost-save-kept:120
	ack-behind-gap:160 no-read-back:300 landed-too-early:120 odd-modseq-believed:700 served-before-replayed:200 served-before-sealed:120"
rare="no-lease,no-tombstone:1500 modseq-ends-forgotten:1200 uidnext-given-back:1500 flying-save-uploaded:1200 no-fence,older-epoch-adopted:6101-6200"
seeds=${CULVER_SIM_SEEDS:-2000}
if [ "$slow" -gt 1 ]; then
	seeds=${CULVER_SIM_SEEDS:-15}
	quick=
	rare=
fi

out=$($sim --seeds 1-"$seeds" --lines 80 2>&1)
if [ $? -eq 0 ]; then result ok "no promise is broken in $seeds worlds"; else result "not ok" "no promise is broken in $seeds worlds"; fi
echo "$out" | sed 's/^/# /'

caught() {	# breakage, seeds, more options
	name=$1 within=$2 seeds=1-$2
	shift 2
	case $within in *-*) seeds=$within ;; esac
	out=$($sim --seeds "$seeds" --break "$name" --quiet "$@" 2>&1)
	status=$?
	case $status:$out in
	*"promise 0"*) result "not ok" "$name breaks a promise, not the program";;
	1:*) result ok "$name is caught";;
	*) result "not ok" "$name is caught within $within seeds";;
	esac
	echo "$out" | grep -E '^(seed|[0-9]+ seeds)' | sed 's/^/# /'
}

for b in $quick $rare; do
	caught "${b%:*}" "${b#*:}"
done

# A start on a store of each kind: refused in every world, and never blamed when it is good.
odd="ignores-create ignores-match ignores-both checks-then-writes refuses-conditions swaps-nothing stale"
stores=${CULVER_SIM_STORES:-100}
if [ "$slow" -gt 1 ]; then
	stores=${CULVER_SIM_STORES:-2}
fi
for kind in good $odd; do
	out=$($sim --seeds 1-"$stores" --store "$kind" --lines 80 2>&1)
	status=$?
	if [ "$kind" = good ]; then what="is never blamed for its network"; else what="is refused at every start"; fi
	case $status:$out in
	0:*"probes: 0 passed the store, 0 refused it"*) result "not ok" "$kind: the store is tried";;
	0:*) result ok "a store of the kind $kind $what";;
	*) result "not ok" "a store of the kind $kind $what";;
	esac
	echo "$out" | sed 's/^/# /'
done
[ "$slow" -gt 1 ] ||
for b in probe-takes-silence-for-an-answer:60:good probe-tolerates-no-conflict:60:good probe-sees-no-race:20:checks-then-writes probe-never-overwrites:20:stale; do
	rest=${b#*:}
	caught "${b%%:*}" "${rest%:*}" --store "${rest#*:}"
done
echo "1..$n"
