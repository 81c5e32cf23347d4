#!/bin/sh
# Times `up`, no-op `up`, `diff`, one changed variable and `down` for stacks of N containers on one bridge, with three
# published ports and memory and cpu limits each. Medians of several rounds, in namespaces of their own; whole processes.
#
#   benches/stack.sh [N…]            default: 10 30
#   ROUNDS=9 benches/stack.sh 10
set -eu
cd "$(dirname "$0")/.."
STACK=${STACK:-$(ls -t target/*/release/stack target/release/stack 2>/dev/null | head -1)}
STACK=$(realpath "$STACK")
ROUNDS=${ROUNDS:-7}
work=${WORK:-$(mktemp -d /var/tmp/stack-bench.XXXXXX)}
export STACK_DATA_DIR="$work/data" STACK_RUN_DIR="$work/run/stack" STACK_CGROUP="stack-bench-$$"
if [ "${INSIDE:-}" != yes ]; then
    status=0
    unshare --mount --net --propagation private env INSIDE=yes WORK="$work" STACK="$STACK" ROUNDS="$ROUNDS" sh "$0" "$@" || status=$?
    rm -rf "$work"
    exit $status
fi
mkdir "$work/run"
mount -t tmpfs run "$work/run"
ip link set lo up

file() { # containers, value of the variable in the last one
    echo 'name = "bench"'
    echo '[image.host]'
    echo 'from = "host:"'
    echo '[bridge.front]'
    i=1
    while [ "$i" -le "$1" ]; do
        v=same
        [ "$i" -eq "$1" ] && v=$2
        cat <<T
[container.c$i]
image = "host"
command = ["sleep", "3600"]
env = { V = "$v" }
bridge = ["front"]
port = ["$((10000 + i)):80", "$((11000 + i)):81", "$((12000 + i)):82/udp"]
memory = "64MiB"
cpu = 0.5
T
        i=$((i + 1))
    done
}

# Milliseconds of wall time of one command.
timed() {
    begun=$(date +%s%N)
    "$@" >/dev/null 2>"$work/errors" || { s=$?; [ "$s" -eq 2 ] || { cat "$work/errors" >&2; exit 1; }; }
    ended=$(date +%s%N)
    echo "$(( (ended - begun) / 10000 ))" | sed 's/\(..\)$/.\1/'
}

median() { sort -n | awk '{v[NR]=$1} END {print v[int((NR+1)/2)]}'; }

printf 'load %s, kernel %s, %s rounds\n' "$(cut -d' ' -f1 /proc/loadavg)" "$(uname -r)" "$ROUNDS"
printf '%-12s %10s %10s %10s %12s %10s   ms, medians\n' containers up no-op diff 'one change' down
[ $# -gt 0 ] || set -- 10 30
for n in "$@"; do
    file "$n" one >"$work/one.toml"
    file "$n" two >"$work/two.toml"
    for kind in up noop diff change down; do : >"$work/$kind"; done
    round=0
    while [ "$round" -le "$ROUNDS" ]; do
        [ "$round" -gt 0 ] && out="$work" || { out="$work/warm"; mkdir -p "$out"; }
        timed "$STACK" up "$work/one.toml" >>"$out/up"
        timed "$STACK" up "$work/one.toml" >>"$out/noop"
        timed "$STACK" diff "$work/one.toml" >>"$out/diff"
        timed "$STACK" up "$work/two.toml" >>"$out/change"
        if [ "$round" -eq "$ROUNDS" ]; then
            sleep 1
            pss=$("$STACK" ps -f "$work/two.toml" --json | grep -oE '"(pid|monitor)": [0-9]+' | grep -oE '[0-9]+' |
                while read -r pid; do awk '/^Pss:/ {print $2}' "/proc/$pid/smaps_rollup"; done | awk '{s += $1} END {print s}')
        fi
        timed "$STACK" down "$work/two.toml" >>"$out/down"
        round=$((round + 1))
    done
    printf '%-12s %10s %10s %10s %12s %10s   monitor and init: %s KiB PSS each\n' "$n" "$(median <"$work/up")" \
        "$(median <"$work/noop")" "$(median <"$work/diff")" "$(median <"$work/change")" "$(median <"$work/down")" \
        "$(echo "$pss $n" | awk '{printf "%.0f", $1/$2}')"
    rm -rf "$work/warm"
done
