//! Ring 5: whole stacks on the real kernel, each in namespaces and a cgroup branch of its own.

#[path = "support/sandbox.rs"]
mod sandbox;

use sandbox::{Sandbox, until};

/// Three containers of the host's own `/usr`: one serves, one only sleeps, one has completed.
const SHOP: &str = r#"
name = "shop"

[image.host]
from = "host:"

[bridge.front]
subnet = "10.70.0.0/26"

[container.web]
image = "host"
command = ["perl", "-MIO::Socket::INET", "-e", '''
    my $$s = IO::Socket::INET->new(LocalPort => 80, Listen => 16, ReuseAddr => 1) or die;
    while (my $$c = $$s->accept) { my $$l = <$$c>; print $$c "HTTP/1.0 200 OK\r\n\r\nfrom $$ENV{WHO} to " . $$c->peerhost . "\n"; }
''']
env = { WHO = "web" }
bridge = ["front"]
port = ["8080:80"]
memory = "64MiB"
restart = "always"
health = { http = "/", port = 80, interval = "1s" }

[container.idle]
image = "host"
command = ["sleep", "3600"]
bridge = ["front"]
after = { web = "healthy" }

[container.job]
image = "host"
command = ["true"]
"#;

fn shop() -> Sandbox {
    let host = Sandbox::new();
    host.write("stack.toml", SHOP);
    host.ok(&["up"]);
    host
}

#[test]
fn up_then_diff_is_empty_and_down_leaves_nothing() {
    let host = shop();
    until("the job completes", || host.ps()["job"]["phase"]["state"] == "exited");
    assert!(host.in_sync(), "{}", host.stack(&["diff"]).stdout);
    host.ok(&["down"]);
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

#[test]
fn a_published_port_answers_on_loopback_and_containers_call_each_other_by_name() {
    let host = shop();
    assert!(host.sh("curl -s -m 5 http://127.0.0.1:8080/").starts_with("from web"));
    let script = "exec 3<>/dev/tcp/web/80; echo GET / >&3; cat <&3";
    assert!(host.ok(&["exec", "idle", "bash", "-c", script]).contains("from web"));
}
