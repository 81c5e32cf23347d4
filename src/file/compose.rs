//! docker compose's spellings, each with ours.

use super::keys::Kind;

/// What to write instead of `key` in a table of `kind`, if it is a spelling of docker compose or of its command line.
pub(super) fn hint(kind: &Kind, key: &str) -> Option<&'static str> {
    let table = match kind.header {
        "the top of the file" => &TOP[..],
        "[image.NAME]" => &IMAGE[..],
        "[bridge.NAME]" => &BRIDGE[..],
        "[volume.NAME]" => &VOLUME[..],
        "[container.NAME]" => &CONTAINER[..],
        "[cgroup.NAME]" => &CONTAINER[..],
        "health = { … }" => &HEALTH[..],
        "mount = [{ … }]" => &MOUNT[..],
        "secret = [{ … }]" => &SECRET[..],
        "log = { … }" => &LOG[..],
        _ => &[],
    };
    table.iter().find(|(theirs, _)| *theirs == key).map(|(_, ours)| *ours)
}

type Hint = (&'static str, &'static str);

const TOP: [Hint; 10] = [
    ("services", "write a table per container: `[container.web]`"),
    ("service", "write a table per container: `[container.web]`"),
    ("containers", "write a table per container: `[container.web]`"),
    ("networks", "write a table per bridge: `[bridge.front]`"),
    ("network", "write a table per bridge: `[bridge.front]`"),
    ("volumes", "write a table per volume: `[volume.data]`"),
    ("images", "write a table per image: `[image.web]`"),
    ("configs", "bind the file: `mount = [{ bind = \"app.conf\", target = \"/etc/app.conf\", ro = true }]`"),
    ("secrets", "write it where it is used: `secret = [{ file = \"secrets/pg\", target = \"/run/secrets/pg\" }]`"),
    ("version", "leave it out"),
];

const IMAGE: [Hint; 3] = [
    ("image", "write `from = \"oci:images/web\"`"),
    ("context", "images are not built; write `from = \"oci:images/web\"`"),
    ("dockerfile", "images are not built; write `from = \"oci:images/web\"`"),
];

const BRIDGE: [Hint; 7] = [
    ("driver", "leave it out; a bridge is what it is"),
    ("driver_opts", "leave it out; `mtu` is a key of its own"),
    ("ipam", "write `subnet = \"10.70.0.0/26\"`"),
    ("external", "leave it out; a bridge belongs to one stack"),
    ("enable_ipv6", "leave it out, bridges carry IPv6; to be without it write `ipv6 = false`"),
    ("gateway", "leave it out; the gateway is the first address of the subnet"),
    ("attachable", "leave it out; containers name the bridge with `bridge = [\"front\"]`"),
];

const VOLUME: [Hint; 4] = [
    ("driver", "leave it out; a volume is a folder of the host"),
    (
        "driver_opts",
        "leave it out; for a folder of your choice write `mount = [{ bind = \"/srv/data\", target = \"/data\" }]`",
    ),
    ("external", "leave it out; a volume belongs to one stack"),
    ("labels", "leave it out; containers have `labels`"),
];

const CONTAINER: [Hint; 67] = [
    ("name", "a container is called by its table, `[container.web]`; the stack's name stands before the first [table]"),
    ("container_name", "leave it out; a container is called by its table, `[container.web]`"),
    ("services", "write a table per container: `[container.web]`"),
    ("cmd", "write `command = [\"server\", \"--port\", \"80\"]`"),
    ("args", "write `command = [\"server\", \"--port\", \"80\"]`"),
    ("working_dir", "write `workdir = \"/srv\"`"),
    ("environment", "write `env = { NAME = \"value\" }`"),
    ("networks", "write `bridge = [\"front\"]`"),
    ("network_mode", "leave it out; without `bridge` a container has its loopback alone"),
    ("net", "write `bridge = [\"front\"]`"),
    ("ports", "write `port = [\"8080:80\"]`, bound to 127.0.0.1, or `port = [\"public:8080:80\"]`"),
    ("publish", "write `port = [\"8080:80\"]`, bound to 127.0.0.1, or `port = [\"public:8080:80\"]`"),
    ("expose", "leave it out; containers of one bridge reach each other on every port"),
    ("volumes", "write `volume = [\"data:/var/lib/data\"]` or `mount = [{ bind = \"./src\", target = \"/src\" }]`"),
    ("volumes_from", "name the same volume in both containers: `volume = [\"data:/var/lib/data\"]`"),
    ("tmpfs", "write `mount = [{ tmpfs = \"64MiB\", target = \"/tmp\" }]`"),
    ("bind", "write `mount = [{ bind = \"./src\", target = \"/src\" }]`"),
    ("shm_size", "the usual 64 MiB are there; other sizes are not supported yet"),
    ("configs", "bind the file: `mount = [{ bind = \"app.conf\", target = \"/etc/app.conf\", ro = true }]`"),
    ("secrets", "write `secret = [{ file = \"secrets/pg\", target = \"/run/secrets/pg\" }]`"),
    ("depends_on", "write `after = { db = \"healthy\" }`; conditions are \"started\", \"healthy\" and \"completed\""),
    ("links", "leave it out; containers of one bridge reach each other by name"),
    ("external_links", "leave it out; containers of one bridge reach each other by name"),
    ("extra_hosts", "leave it out; containers of one bridge reach each other by name"),
    (
        "healthcheck",
        "write `health = { exec = [\"pg_isready\"], interval = \"10s\" }`, or with `http = \"/healthz\"` and `port`",
    ),
    ("mem_limit", "write `memory = \"512MiB\"`"),
    ("memory_limit", "write `memory = \"512MiB\"`"),
    ("mem_reservation", "write `memory_low = \"128MiB\"`"),
    ("memswap_limit", "write `swap = \"256MiB\"`; it counts swap alone, without memory"),
    ("mem_swappiness", "leave it out; `swap` bounds the swap that is used"),
    ("cpus", "write `cpu = 1.5`"),
    ("cpu_count", "write `cpu = 2`"),
    ("cpu_percent", "write `cpu = 0.5` for half a processor"),
    ("cpu_quota", "write `cpu = 1.5`"),
    ("cpu_period", "write `cpu = 1.5`"),
    ("cpu_shares", "write `cpu_weight = 100`, from 1 to 10000"),
    ("pids_limit", "write `pids = 512`"),
    ("blkio_config", "write `io = [{ device = \"/dev/vda\", read_bps = \"10MiB\" }]`"),
    ("cgroup_parent", "write `cgroup = \"backend\"` and a table `[cgroup.backend]`"),
    ("deploy", "write `replicas`, `memory`, `cpu`, `restart` and `update` in the container's own table"),
    ("resources", "write `memory` and `cpu` in the container's own table"),
    ("limits", "write `memory` and `cpu` in the container's own table"),
    ("scale", "write `replicas = 2`"),
    ("restart_policy", "write `restart = \"always\"`"),
    ("update_config", "write `update = \"stop-first\"`"),
    ("privileged", "name what the container needs: `cap_add = [\"NET_ADMIN\"]`"),
    ("security_opt", "write `seccomp = \"unconfined\"` or a profile file; no_new_privs is always set"),
    ("cap", "write `cap_add = [\"NET_ADMIN\"]` or `cap_drop = [\"ALL\"]`"),
    ("ulimits", "write `ulimit = { nofile = 65536 }`"),
    ("sysctls", "write `sysctl = { \"net.core.somaxconn\" = 1024 }`"),
    ("stop_grace_period", "write `stop_timeout = \"10s\"`"),
    ("logging", "write `log = { size = \"10MiB\", files = 3 }`"),
    ("label", "write `labels = { \"com.example.team\" = \"web\" }`"),
    ("annotations", "write `labels = { \"com.example.team\" = \"web\" }`"),
    ("label_file", "write `labels = { \"com.example.team\" = \"web\" }`"),
    ("pull_policy", "leave it out; images are not pulled yet"),
    ("extends", "write the keys into the container's own table"),
    ("develop", "leave it out; run `stack up` again after a change"),
    ("tty", "leave it out; `stack exec` gives a terminal"),
    ("stdin_open", "leave it out; `stack exec` gives a terminal"),
    ("group_add", "groups come from the image's /etc/group; write `user = \"NAME:GROUP\"` for another group"),
    ("pid", "leave it out; a container has processes of its own"),
    ("ipc", "leave it out; a container has its own"),
    ("userns_mode", "leave it out; user namespaces are not supported yet"),
    ("runtime", "leave it out; the runtime is built in"),
    ("platform", "leave it out; only images for this machine's architecture are used"),
    ("gpus", "devices are not supported yet"),
];

const HEALTH: [Hint; 3] = [
    ("test", "write `exec = [\"pg_isready\"]`, without `CMD`; or `http = \"/healthz\"` with `port`, or `tcp = 5432`"),
    ("disable", "leave `health` out"),
    ("command", "write `exec = [\"pg_isready\"]`"),
];

const MOUNT: [Hint; 6] = [
    ("type", "write the kind as the key: `bind = \"./src\"` or `tmpfs = \"64MiB\"`"),
    ("source", "write `bind = \"./src\"`"),
    ("src", "write `bind = \"./src\"`"),
    ("volume", "write `volume = [\"data:/var/lib/data\"]` in the container"),
    ("read_only", "write `ro = true`"),
    ("size", "write `tmpfs = \"64MiB\"`"),
];

const SECRET: [Hint; 4] = [
    ("source", "write `file = \"secrets/pg\"`"),
    ("uid", "write `owner = \"999:999\"`"),
    ("gid", "write `owner = \"999:999\"`"),
    ("external", "write `file = \"secrets/pg\"`"),
];

const LOG: [Hint; 4] = [
    ("options", "write `size = \"10MiB\"` and `files = 3`"),
    ("max-size", "write `size = \"10MiB\"`"),
    ("max-file", "write `files = 3`"),
    ("max_size", "write `size = \"10MiB\"`"),
];
