docker run -d --name server --network none image server >/dev/null
expect "$(docker exec server cat /proc/1/comm)" server
expect "$(docker exec -e A=b -w /bin -u 5 server sh -c 'echo $A $PWD $(id -u); exit 5' || echo $?)" "b /bin 5
5"
# The status is docker's, with every runtime; the reason is ours.
docker exec server nonexistent 2>&1 | grep -q 'executable file not found'
expect "$(docker exec -t server tty | tr -d '\r')" /dev/pts/0
expect "$(docker run --rm --network container:server --pid container:server image cat /proc/1/comm)" server
docker pause server >/dev/null
expect "$(docker inspect -f '{{.State.Status}}' server)" paused
docker unpause server >/dev/null
docker top server | grep -q 'bin/server'
docker update --memory 100m --memory-swap 100m --pids-limit 33 server >/dev/null 2>&1
expect "$(docker exec server sh -c "$MEMORY; $PIDS")" "104857600
33"
docker stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' server | grep -q '/ 100MiB [1-9]'
docker kill --signal USR1 server >/dev/null
tries=0
until docker logs server | grep -q told; do tries=$((tries + 1)); [ $tries -lt 100 ]; sleep 0.1; done
docker stop -t 60 server >/dev/null
expect "$(docker inspect -f '{{.State.ExitCode}}' server)" 9
expect "$(docker logs server | head -n 1)" started
docker start server >/dev/null
docker restart -t 0 server >/dev/null
docker kill server >/dev/null
expect "$(docker inspect -f '{{.State.ExitCode}}' server)" 137
docker rm server >/dev/null

# The end of the memory is told as that.
docker run --name hungry --network none --memory 20m --memory-swap 20m image sh -c 'x=a; while :; do x=$x$x; done' && exit 1
expect "$(docker inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' hungry)" "137 true"
docker rm hungry >/dev/null

# Containers outlive the daemon's commands, and what is removed by force is gone.
docker run -d --name server --network none image sleep 1000 >/dev/null
docker rm -f server >/dev/null
expect "$(docker ps -aq)" ""
expect "$(find "$HERE/exec/runtime-stack" /run/docker/runtime-stack -name state.json 2>/dev/null)" ""
