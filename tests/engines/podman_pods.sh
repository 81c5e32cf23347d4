# Without a pause image: what holds the namespaces is of our image too.
pod="podman pod create $confined --infra-image image"
$pod --infra-command server --share pid,net,ipc,uts --hostname together --name pod >/dev/null
podman run -d --name one --pod pod image server >/dev/null
expect "$(podman run --rm --pod pod image hostname)" together
expect "$(podman exec one cat /proc/1/comm)" server
podman run --rm --pod pod image ps | grep -c 'bin/server' | grep -qx 2
namespaces='cd /proc/self/ns; for kind in pid net ipc uts; do ls -l $kind; done | grep -o "[a-z]*:.*"'
expect "$(podman run --rm --pod pod image sh -c "$namespaces")" "$(podman exec one sh -c "$namespaces")"
podman pod pause pod >/dev/null
podman pod unpause pod >/dev/null
podman pod stop -t 60 pod >/dev/null 2>&1
expect "$(podman inspect --format '{{.State.Running}}' one)" false
podman pod start pod >/dev/null
expect "$(podman exec one cat /proc/1/comm)" server
podman pod rm -f -t 0 pod >/dev/null
expect "$(podman ps -aq)" ""
