//! Every table of a stack file with the keys it takes, what each wants, and an example of it.
//!
//! The one list that unknown keys, wrong types and hints are worked out from; `docs/stack-file.md` is held against it.

/// A key of a table.
#[derive(Debug)]
pub(super) struct Key {
    pub name: &'static str,
    /// Completes "`name` must be …".
    pub wants: &'static str,
    /// A TOML value.
    pub example: &'static str,
}

impl Key {
    /// A line for help texts that shows the key with a value.
    pub fn in_use(&self) -> String {
        match self.wants.starts_with("written as") {
            true => format!("for example `{}`", self.example),
            false => format!("for example `{} = {}`", self.name, self.example),
        }
    }
}

/// A kind of table.
#[derive(Debug)]
pub(super) struct Kind {
    /// How such a table is opened or where it stands, for messages.
    pub header: &'static str,
    pub keys: &'static [Key],
    /// Keys that will have an effect one day, each with what to do today.
    pub later: &'static [(&'static str, &'static str)],
}

impl Kind {
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

const fn key(name: &'static str, wants: &'static str, example: &'static str) -> Key {
    Key { name, wants, example }
}

/// All kinds, for "belongs in" hints and for the test of the documentation.
pub(super) const KINDS: [&Kind; 16] = [
    &TOP, &IMAGE, &BRIDGE, &CGROUP, &VOLUME, &CONTAINER, &HEALTH, &MOUNT, &SECRET, &WATCH, &IO, &LOG, &BUILD, &STAGE,
    &COPY, &BOOTSTRAP,
];

pub(super) const TOP: Kind = Kind {
    header: "the top of the file",
    keys: &[
        key("name", "a string", "\"shop\""),
        key("include", "a list of strings", "[\"db.toml\"]"),
        key("override", "written as tables [override.PROFILE.…]", "[override.dev.container.web]"),
        key("image", "written as tables [image.NAME]", "[image.web]"),
        key("bridge", "written as tables [bridge.NAME]", "[bridge.front]"),
        key("cgroup", "written as tables [cgroup.NAME]", "[cgroup.backend]"),
        key("volume", "written as tables [volume.NAME]", "[volume.data]"),
        key("container", "written as tables [container.NAME]", "[container.web]"),
    ],
    later: &[
        ("profile", "write `profile = [\"dev\"]` in the containers, or what differs in [override.dev]"),
        ("watch", "write rules in [[container.NAME.watch]]"),
    ],
};

pub(super) const IMAGE: Kind = Kind {
    header: "[image.NAME]",
    keys: &[
        key("from", "an image source in a string", "\"oci:images/web\""),
        key("pull", "a string", "\"missing\""),
        key("build", "written as a table [image.NAME.build]", "[image.web.build]"),
    ],
    later: &[
        ("platform", "only images for this machine's architecture are used"),
        ("watch", "write rules in [[container.NAME.watch]]"),
    ],
};

const BASE: Key = key("from", "an image source in a string", "\"docker.io/library/debian:12\"");
const BASE_BOOTSTRAP: Key = key("bootstrap", "a table", "{ suite = \"bookworm\", packages = [\"nginx\"] }");
const BUILD_ENV: Key = key("env", "a table of strings, numbers and booleans", "{ LANG = \"C.UTF-8\" }");
const BUILD_WORKDIR: Key = key("workdir", "an absolute path in a string", "\"/srv\"");
const BUILD_COPY: Key = key("copy", "a list of tables", "[{ src = [\"site\"], to = \"/srv/www\" }]");
const BUILD_RUN: Key = key("run", "a list of strings", "[\"apt-get update\"]");
const BUILD_USER: Key = key("user", "a user in a string", "\"app\"");

pub(super) const BUILD: Kind = Kind {
    header: "[image.NAME.build]",
    keys: &[
        key("dockerfile", "a path of the host in a string", "\"Dockerfile\""),
        key("context", "a path of the host in a string", "\".\""),
        key("args", "a table of strings, numbers and booleans", "{ VERSION = \"1.2\" }"),
        key("target", "a string", "\"release\""),
        key("network", "a string", "\"none\""),
        BASE,
        BASE_BOOTSTRAP,
        key("stage", "written as tables [image.NAME.build.stage.NAME]", "[image.web.build.stage.compile]"),
        BUILD_ENV,
        BUILD_WORKDIR,
        BUILD_COPY,
        BUILD_RUN,
        BUILD_USER,
        key("entrypoint", "a list of strings", "[\"/usr/bin/server\"]"),
        key("command", "a list of strings", "[\"--port\", \"80\"]"),
        key("expose", "a list of strings", "[\"80/tcp\"]"),
        key("labels", "a table of strings, numbers and booleans", "{ \"com.example.team\" = \"web\" }"),
    ],
    later: &[
        ("secret", "give secrets to containers; what a step reads may stay in a layer"),
        ("cache_from", "steps are kept by their content on this host"),
        ("platform", "images are built for this machine's architecture"),
    ],
};

pub(super) const STAGE: Kind = Kind {
    header: "[image.NAME.build.stage.NAME]",
    keys: &[BASE, BASE_BOOTSTRAP, BUILD_ENV, BUILD_WORKDIR, BUILD_COPY, BUILD_RUN, BUILD_USER],
    later: &[],
};

pub(super) const COPY: Kind = Kind {
    header: "copy = [{ … }]",
    keys: &[
        key("src", "a list of strings", "[\"site\"]"),
        key("to", "a path in a string", "\"/srv/www\""),
        key("stage", "a string", "\"compile\""),
        key("image", "an image in a string", "\"docker.io/library/busybox:1\""),
        key("owner", "a user in a string", "\"app:app\""),
        key("mode", "permission bits in a string", "\"0755\""),
    ],
    later: &[],
};

pub(super) const BOOTSTRAP: Kind = Kind {
    header: "bootstrap = { … }",
    keys: &[
        key("suite", "a string", "\"bookworm\""),
        key("packages", "a list of strings", "[\"nginx\"]"),
        key("variant", "a string", "\"minbase\""),
        key("mirror", "a URL in a string", "\"http://deb.debian.org/debian\""),
    ],
    later: &[],
};

pub(super) const BRIDGE: Kind = Kind {
    header: "[bridge.NAME]",
    keys: &[
        key("subnet", "an IPv4 subnet in a string", "\"10.70.0.0/26\""),
        key("subnet6", "an IPv6 subnet in a string", "\"fd12:3456:789a:1::/64\""),
        key("ipv6", "true or false", "false"),
        key("mtu", "an integer, in bytes", "1450"),
        key("internal", "true or false", "true"),
    ],
    later: &[
        ("egress", "containers of a bridge reach out through the host"),
        ("allow", "containers of one bridge reach each other on every port"),
        ("isolate", "containers of one bridge reach each other"),
    ],
};

const MEMORY: Key = key("memory", "a size in a string", "\"512MiB\"");
const MEMORY_LOW: Key = key("memory_low", "a size in a string", "\"128MiB\"");
const MEMORY_HIGH: Key = key("memory_high", "a size in a string", "\"384MiB\"");
const SWAP: Key = key("swap", "a size in a string", "\"256MiB\"");
const CPU: Key = key("cpu", "a number of processors", "1.5");
const CPU_BURST: Key = key("cpu_burst", "a duration in a string", "\"50ms\"");
const CPUSET: Key = key("cpuset", "a list of processors in a string", "\"0-3,8\"");
const CPUSET_MEMS: Key = key("cpuset_mems", "a list of memory nodes in a string", "\"0\"");
const CPU_WEIGHT: Key = key("cpu_weight", "an integer from 1 to 10000", "100");
const PIDS: Key = key("pids", "an integer", "512");
const IO_KEY: Key = key("io", "a list of tables", "[{ device = \"/dev/vda\", read_bps = \"10MiB\" }]");

pub(super) const CGROUP: Kind = Kind {
    header: "[cgroup.NAME]",
    keys: &[MEMORY, MEMORY_LOW, MEMORY_HIGH, SWAP, CPU, CPU_BURST, CPU_WEIGHT, CPUSET, CPUSET_MEMS, PIDS, IO_KEY],
    later: &[],
};

pub(super) const VOLUME: Kind = Kind {
    header: "[volume.NAME]",
    keys: &[],
    later: &[
        ("size", "a volume is bounded by the file system it lies in"),
        ("owner", "set the owner from inside the container"),
        ("snapshot", "copy the volume's folder while its containers are down"),
    ],
};

pub(super) const CONTAINER: Kind = Kind {
    header: "[container.NAME]",
    keys: &[
        key("image", "an image in a string", "\"web\""),
        key("entrypoint", "a list of strings", "[\"/usr/bin/server\"]"),
        key("command", "a list of strings", "[\"sh\", \"-c\", \"exec server\"]"),
        key("workdir", "an absolute path in a string", "\"/srv\""),
        key("user", "a user in a string", "\"1000:1000\""),
        key("hostname", "a string", "\"web\""),
        key("env", "a table of strings, numbers and booleans", "{ PORT = \"80\" }"),
        key("env_file", "a list of strings", "[\"web.env\"]"),
        key("bridge", "a list of strings", "[\"front\"]"),
        key("gateway", "a bridge in a string", "\"front\""),
        key("port", "a list of strings", "[\"8080:80\"]"),
        key("cgroup", "a string", "\"backend\""),
        MEMORY,
        MEMORY_LOW,
        MEMORY_HIGH,
        SWAP,
        CPU,
        CPU_BURST,
        CPU_WEIGHT,
        CPUSET,
        CPUSET_MEMS,
        PIDS,
        IO_KEY,
        key("volume", "a list of strings", "[\"data:/var/lib/data\"]"),
        key("mount", "a list of tables", "[{ bind = \"./src\", target = \"/src\", ro = true }]"),
        key("secret", "a list of tables", "[{ file = \"secrets/pg\", target = \"/run/secrets/pg\" }]"),
        key("watch", "a list of tables", "[{ path = \"src\", target = \"/app\", action = \"sync\" }]"),
        key("after", "a table of conditions", "{ db = \"healthy\" }"),
        key("type", "a string", "\"oneshot\""),
        key("run", "a string", "\"on-change\""),
        key("profile", "a list of strings", "[\"dev\"]"),
        key("replicas", "an integer", "2"),
        key("update", "a string", "\"stop-first\""),
        key("restart", "a string", "\"always\""),
        key("health", "a table", "{ http = \"/healthz\", port = 80 }"),
        key("seccomp", "a string", "\"default\""),
        key("read_only", "true or false", "true"),
        key("cap_add", "a list of strings", "[\"NET_ADMIN\"]"),
        key("cap_drop", "a list of strings", "[\"ALL\"]"),
        key("ulimit", "a table of limits", "{ nofile = 65536, core = [0, 0] }"),
        key("sysctl", "a table of strings and integers", "{ \"net.core.somaxconn\" = 1024 }"),
        key("oom_score_adj", "an integer from -1000 to 1000", "500"),
        key("stop_signal", "a signal's name or number", "\"SIGINT\""),
        key("stop_timeout", "a duration in a string", "\"10s\""),
        key("init", "true or false", "true"),
        key("labels", "a table of strings, numbers and booleans", "{ \"com.example.team\" = \"web\" }"),
        key("log", "a table", "{ size = \"10MiB\", files = 3 }"),
    ],
    later: &[
        ("build", "write a table [image.NAME.build], and name that image here"),
        ("pull", "write `pull` in a table [image.NAME], and name that here"),
        ("network", "a container has a network of its own; `bridge` connects it, none leaves it loopback alone"),
        ("schedule", "start `stack up` from a timer of the host"),
        ("override", "write what differs as [override.PROFILE.container.NAME]"),
        ("allow", "containers of one bridge reach each other on every port"),
        ("egress", "containers of a bridge reach out through the host"),
        ("device", "only the usual devices are in /dev"),
        ("devices", "only the usual devices are in /dev"),
        ("hook", "run a second container with `after`"),
        ("userns", "user 0 of the container is user 0 of the host, without its capabilities"),
        ("drain", "connections end when the container stops"),
        ("dns", "the host's own resolvers are used"),
        ("apparmor", "`seccomp`, `cap_drop` and `read_only` confine the container"),
    ],
};

pub(super) const HEALTH: Kind = Kind {
    header: "health = { … }",
    keys: &[
        key("exec", "a list of strings", "[\"pg_isready\"]"),
        key("tcp", "a port of the container", "5432"),
        key("http", "a path in a string", "\"/healthz\""),
        key("port", "an integer", "80"),
        key("interval", "a duration in a string", "\"10s\""),
        key("timeout", "a duration in a string", "\"5s\""),
        key("retries", "an integer", "3"),
        key("start_period", "a duration in a string", "\"30s\""),
        key("on_failure", "a string", "\"restart\""),
    ],
    later: &[
        ("unix", "probe with `exec`, `tcp` or `http`"),
        ("grpc", "probe with `exec`, `tcp` or `http`"),
        ("start_interval", "`interval` holds from the start"),
        ("status", "a status from 200 to 399 is healthy"),
    ],
};

pub(super) const MOUNT: Kind = Kind {
    header: "mount = [{ … }]",
    keys: &[
        key("bind", "a path of the host in a string", "\"./src\""),
        key("tmpfs", "a size in a string", "\"64MiB\""),
        key("target", "an absolute path in a string", "\"/src\""),
        key("ro", "true or false", "true"),
        key("mode", "permission bits in a string", "\"1777\""),
        key("on_change", "a string", "\"signal:HUP\""),
    ],
    later: &[
        ("map", "files keep the owner they have on the host"),
        ("owner", "files keep the owner they have on the host"),
        ("propagation", "mounts of the host made later do not appear in the container"),
        ("image", "name the files with `bind`"),
    ],
};

pub(super) const SECRET: Kind = Kind {
    header: "secret = [{ … }]",
    keys: &[
        key("file", "a path of the host in a string", "\"secrets/pg\""),
        key("target", "an absolute path in a string", "\"/run/secrets/pg\""),
        key("owner", "a user and a group number in a string", "\"999:999\""),
        key("mode", "permission bits in a string", "\"0400\""),
        key("on_change", "a string", "\"restart\""),
    ],
    later: &[("env", "write the value into a file and name it with `file`")],
};

pub(super) const WATCH: Kind = Kind {
    header: "[[container.NAME.watch]]",
    keys: &[
        key("path", "a path of the host in a string", "\"src\""),
        key("action", "a string", "\"sync\""),
        key("target", "an absolute path in a string", "\"/app\""),
        key("ignore", "a list of strings", "[\"node_modules/\", \"*.log\"]"),
    ],
    later: &[
        ("exec", "write `action = \"exec:PROGRAM ARGUMENT\"`"),
        ("include", "write `ignore = [\"*\", \"!PATTERN\"]`"),
        ("initial_sync", "all files are brought when the container starts"),
    ],
};

pub(super) const IO: Kind = Kind {
    header: "io = [{ … }]",
    keys: &[
        key("device", "a device in a string", "\"/dev/vda\""),
        key("read_bps", "a size per second in a string", "\"10MiB\""),
        key("write_bps", "a size per second in a string", "\"10MiB\""),
        key("read_iops", "an integer", "100"),
        key("write_iops", "an integer", "100"),
    ],
    later: &[("weight", "`read_bps` and its siblings bound a device")],
};

pub(super) const LOG: Kind = Kind {
    header: "log = { … }",
    keys: &[key("size", "a size in a string", "\"10MiB\""), key("files", "an integer", "3")],
    later: &[
        ("driver", "output goes to bounded files, which `stack logs` shows"),
        ("compress", "old files stay as they are"),
    ],
};
