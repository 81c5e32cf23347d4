expect "$(docker info --format '{{.DefaultRuntime}}')" stack
expect "$($run --runtime stack image cat /proc/1/comm)" cat
expect "$(status $run image sh -c 'exit 3')" 3
expect "$(status $run image nonexistent)" 127
expect "$(status $run image /etc)" 126
expect "$($run image sh -c 'echo out; echo error >&2' 2>/dev/null)" out
expect "$($run --memory 64m image sh -c "$MEMORY")" 67108864
expect "$($run --pids-limit 7 image sh -c "$PIDS")" 7
expect "$($run --cap-drop all image grep CapEff /proc/self/status | tr -d '\t')" CapEff:0000000000000000
expect "$($run image grep Seccomp: /proc/self/status | tr -d '\t')" Seccomp:2
expect "$($run --security-opt no-new-privileges image grep NoNewPrivs /proc/self/status | tr -d '\t')" NoNewPrivs:1
expect "$($run --user 12:34 --hostname abc image sh -c 'id -u; id -g; hostname')" "12
34
abc"
expect "$($run --ulimit nofile=100:200 image sh -c 'ulimit -n; ulimit -Hn')" "100
200"
expect "$($run --init image cat /proc/1/comm)" docker-init
expect "$($run --tmpfs /small:size=1m image grep -c '/small tmpfs.*size=1024k' /proc/mounts)" 1
expect "$($run --device /dev/null:/dev/other image stat -c %F /dev/other)" "character special file"
expect "$($run --privileged image grep Seccomp: /proc/self/status | tr -d '\t')" Seccomp:0
expect "$(status $run --read-only image touch /x)" 1
mkdir "$HERE/volume"
$run -v "$HERE/volume:/volume" image touch /volume/x
expect "$(ls "$HERE/volume")" x
expect "$(status $run -v "$HERE/volume:/volume:ro" image touch /volume/y)" 1

cat >"$HERE/seccomp.json" <<END
{ "defaultAction": "SCMP_ACT_ALLOW",
  "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }] }
END
$run --security-opt "seccomp=$HERE/seccomp.json" image sh -c '! mkdir /x' 2>&1 | grep -q 'No space left'

expect "$($run -t image tty | tr -d '\r')" /dev/pts/0
# The client says the size once the container runs.
cat >"$HERE/keys" <<'END'
tries=0; until [ "$(stty size)" = "33 99" ] || [ $tries -gt 600 ]; do tries=$((tries + 1)); sleep 0.1; done
stty size; exit 4
END
on_terminal() { script -qec "stty rows 33 cols 99; $*" /dev/null <"$HERE/keys" | tr -d '\r'; }
on_terminal $run -it image sh | grep -qx '33 99'
expect "$(script -qec "stty rows 33 cols 99; $run -it image sh" /dev/null <"$HERE/keys" >/dev/null && echo 0 || echo $?)" 4
expect "$(docker ps -aq)" ""
