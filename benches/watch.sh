#!/bin/sh
# Times `stack watch`: from a file's save to "converged", for one change of each kind in a stack of N containers on one bridge.
# Medians of several rounds, in namespaces of their own. `total` is from rename(2) to the event in the output; `done` is what
# the event itself says: from the end of the debounce to the host being in sync. Their difference is the debounce (25 ms of
# quiet), hearing and the look at the files.
#
#   benches/watch.sh [N…]            default: 3 20
#   ROUNDS=15 benches/watch.sh 20
set -eu
cd "$(dirname "$0")/.."
STACK=${STACK:-$(ls -t target/*/release/stack target/release/stack 2>/dev/null | head -1)}
STACK=$(realpath "$STACK")
ROUNDS=${ROUNDS:-9}
work=${WORK:-$(mktemp -d /var/tmp/stack-bench.XXXXXX)}
export STACK_DATA_DIR="$work/data" STACK_RUN_DIR="$work/run/stack" STACK_CGROUP="stack-bench-$$" NO_COLOR=1
if [ "${INSIDE:-}" != yes ]; then
    status=0
    unshare --mount --net --propagation private env INSIDE=yes WORK="$work" STACK="$STACK" ROUNDS="$ROUNDS" sh "$0" "$@" || status=$?
    rm -rf "$work"
    exit $status
fi
mkdir -p "$work/run" "$work/src"
mount -t tmpfs run "$work/run"
ip link set lo up
cd "$work"

others() { # containers
    i=1
    while [ "$i" -le "$1" ]; do
        printf '[container.c%s]\nimage = "host:"\ncommand = ["sleep", "3600"]\nbridge = ["front"]\nmemory = "64MiB"\n' "$i"
        i=$((i + 1))
    done
}

cat > edit.pl <<'PERL'
use strict; use warnings; use Time::HiRes qw(time sleep);
my ($rounds) = @ARGV;
my %kind = (
    live    => ['stack.toml', 'arrived'], signal  => ['signal.conf', 'arrived'], sync    => ['src/file', 'synced'],
    restart => ['restart.conf', 'arrived'], replace => ['web.env', 'arrived'],
);
sub slurp { open my $f, '<', $_[0] or die "$_[0]: $!"; local $/; <$f> }
sub save { my ($name, $text) = @_; open my $f, '>', "$name~" or die $!; print $f $text; close $f; rename "$name~", $name or die $!; }
my $template = slurp('template.toml');
open my $log, '<', 'log' or die $!;
seek $log, 0, 2;
sub median { my @sorted = sort { $a <=> $b } @_; $sorted[@sorted / 2] }
for my $name (qw(live signal sync restart replace)) {
    my ($file, $event) = @{$kind{$name}};
    my (@total, @done);
    for my $round (1 .. $rounds) {
        my $text = $name eq 'live' ? $template =~ s/65MiB/(65 + $round) . 'MiB'/er : "LEVEL=$name$round$$\n";
        my $begun = time; my $rest = '';
        save($file, $text);
        LINE: while (1) {
            die "$name: not within 30 s\n" if time - $begun > 30;
            seek $log, 0, 1;
            my $line = <$log>;
            if (!defined $line) { sleep 0.0003; next }
            $rest .= $line; next if $rest !~ /\n\z/;
            die $rest if $rest =~ /"event":"failed"/;
            if ($rest =~ /"event":"$event"/) {
                push @total, (time - $begun) * 1000;
                push @done, $rest =~ /"took_ms":([0-9.]+)/;
                last LINE;
            }
            $rest = '';
        }
        sleep 0.4; # what comes after, such as files for a new container, is not the next one's
        seek $log, 0, 2;
    }
    printf "  %-8s total %7.1f ms   done %7.1f ms\n", $name, median(@total), median(@done);
}
PERL

[ $# -gt 0 ] || set -- 3 20
for count in "$@"; do
    {
        cat <<'T'
name = "bench"
[bridge.front]
[container.web]
image = "host:"
command = ["sh", "-c", "trap : HUP; trap 'exit 0' TERM; while :; do sleep 0.01; done"]
bridge = ["front"]
memory = "65MiB"
env_file = ["web.env"]
mount = [
    { bind = "signal.conf", target = "/etc/signal.conf", on_change = "signal:HUP" },
    { bind = "restart.conf", target = "/etc/restart.conf", on_change = "restart" },
]
[[container.web.watch]]
path = "src"
target = "/app"
action = "sync"
T
        others $((count - 1))
    } > template.toml
    cp template.toml stack.toml
    for name in signal.conf restart.conf web.env src/file; do echo "LEVEL=none" > "$name"; done
    "$STACK" up > /dev/null 2> errors || { cat errors >&2; exit 1; }
    "$STACK" watch --json > log 2>&1 &
    watch=$!
    turns=0
    until grep -q '"event":"arrived"' log; do
        turns=$((turns + 1))
        [ "$turns" -lt 600 ] || { cat log >&2; exit 1; }
        sleep 0.05
    done
    sleep 0.5
    echo "$count containers"
    perl edit.pl "$ROUNDS"
    kill -INT "$watch"
    wait "$watch" || true
    "$STACK" down > /dev/null 2>&1
done
