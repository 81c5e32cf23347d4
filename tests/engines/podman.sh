# What a program sees, and how it ends.
expect "$($run image cat /proc/1/comm)" cat
expect "$(status $run image sh -c 'exit 3')" 3
expect "$(status $run image nonexistent)" 127
expect "$(status $run image /etc)" 126
expect "$($run --cap-drop all image grep CapEff /proc/self/status | tr -d '\t')" CapEff:0000000000000000
expect "$($run --cap-drop all --cap-add kill image grep CapEff /proc/self/status | tr -d '\t')" CapEff:0000000000000020
expect "$($run image grep Seccomp: /proc/self/status | tr -d '\t')" Seccomp:2
expect "$($run --memory 64m image sh -c "$MEMORY")" 67108864
expect "$($run --pids-limit 7 image sh -c "$PIDS")" 7
expect "$($run --uidmap 0:100000:1000 --gidmap 0:100000:1000 image sh -c 'touch /x; stat -c %u /x')" 0
expect "$($run --user 12:34 --hostname abc image sh -c 'id -u; id -g; hostname')" "12
34
abc"
expect "$($run --sysctl net.ipv4.ip_forward=1 image cat /proc/sys/net/ipv4/ip_forward)" 1
expect "$($run --security-opt no-new-privileges image grep NoNewPrivs /proc/self/status | tr -d '\t')" NoNewPrivs:1
expect "$($run --device /dev/null:/dev/other image sh -c 'echo x >/dev/other; stat -c %F /dev/other')" "character special file"
expect "$($run --privileged image sh -c 'grep Seccomp: /proc/self/status' | tr -d '\t')" Seccomp:0

cat >"$HERE/seccomp.json" <<END
{ "defaultAction": "SCMP_ACT_ALLOW",
  "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }] }
END
$run --security-opt "seccomp=$HERE/seccomp.json" image sh -c '! mkdir /x' 2>&1 | grep -q 'No space left'

mkdir "$HERE/volume"
$run -v "$HERE/volume:/volume" image touch /volume/x
expect "$(ls "$HERE/volume")" x
expect "$(status $run -v "$HERE/volume:/volume:ro" image touch /volume/y)" 1
expect "$(status $run --read-only --read-only-tmpfs=false image touch /x)" 1

# Terminals, of the size of the caller's.
expect "$($run -t image tty | tr -d '\r')" /dev/pts/0
on_terminal() { script -qec "stty rows 33 cols 99; $*" /dev/null | tr -d '\r'; }
echo 'stty size; echo ended; exit 4' >"$HERE/keys"
on_terminal $run -it image sh <"$HERE/keys" | grep -qx '33 99'
expect "$(script -qec "$run -it image sh" /dev/null <"$HERE/keys" >/dev/null && echo 0 || echo $?)" 4

# The life of a server.
podman run -d --name server $confined --health-cmd 'test -e /healthy' --health-interval disable image server >/dev/null
expect "$(podman exec server cat /proc/1/comm)" server
expect "$(podman exec -e A=b -w /bin -u 5 server sh -c 'echo $A $PWD $(id -u); exit 5' || echo $?)" "b /bin 5
5"
expect "$(status podman exec server nonexistent)" 127
on_terminal podman exec -it server sh <"$HERE/keys" | grep -qx '33 99'
expect "$(status podman healthcheck run server)" 1
podman exec -d server touch /healthy >/dev/null
tries=0
until podman healthcheck run server >/dev/null; do tries=$((tries + 1)); [ $tries -lt 100 ]; sleep 0.1; done
expect "$(podman run --rm --cgroup-parent "/$GROUP" --network container:server --pid container:server image cat /proc/1/comm)" server
podman top server comm | grep -qx server
podman stats --no-stream --format '{{.PIDS}}' server | grep -q '^[1-9]'
podman update --memory 100m server >/dev/null
expect "$(podman exec server sh -c "$MEMORY")" 104857600
podman pause server >/dev/null
expect "$(podman inspect --format '{{.State.Status}}' server)" paused
podman unpause server >/dev/null
podman kill --signal USR1 server >/dev/null
tries=0
until podman logs server | grep -q told; do tries=$((tries + 1)); [ $tries -lt 100 ]; sleep 0.1; done
podman stop -t 60 server >/dev/null
expect "$(podman logs server | head -n 1)" started
expect "$(podman inspect --format '{{.State.ExitCode}}' server)" 9
podman start server >/dev/null
podman restart -t 0 server >/dev/null
podman rm -f -t 0 server >/dev/null
expect "$(podman ps -aq)" ""
expect "$(ls /run/stack-oci 2>/dev/null)" ""
