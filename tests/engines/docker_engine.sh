mkdir "$HERE/client"
echo '{}' >"$HERE/daemon.json"
export DOCKER_HOST="unix://$HERE/docker.sock" DOCKER_CONFIG="$HERE/client"
# The client of the same package as the daemon. A program and not a function: `script` runs it too.
mkdir "$HERE/bin"
ln -s /usr/bin/docker "$HERE/bin/docker"
PATH="$HERE/bin:$PATH"
dockerd --config-file "$HERE/daemon.json" --data-root "$HERE/data" --exec-root "$HERE/exec" --host "$DOCKER_HOST" \
    --pidfile "$HERE/docker.pid" --bridge none --iptables=false --ip-forward=false --ip-masq=false --storage-driver vfs \
    --cgroup-parent "/$GROUP" --add-runtime "stack=$HERE/stack-oci" --default-runtime stack >"$HERE/daemon.log" 2>&1 &
daemon=$!
tries=0
until docker version >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || { cat "$HERE/daemon.log"; exit 1; }
    sleep 0.1
done
finish() {
    docker ps -aq | xargs -r docker rm -f >/dev/null 2>&1
    kill $daemon
    wait $daemon || true
}
trap finish EXIT
docker import "$HERE/image.tar" image >/dev/null
run="docker run --rm --network none"
