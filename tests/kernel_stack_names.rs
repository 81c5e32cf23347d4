//! Ring 5: names. Containers ask the resolver on their bridge's gateway; it answers for its own stack, and asks the host's
//! servers for all else.

#[path = "support/neighbour.rs"]
mod neighbour;
#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/shop.rs"]
mod shop;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use neighbour::{HOST, NEIGHBOUR, Neighbour};
use sandbox::{Sandbox, until};
use shop::{WAITS, apply, assert_in_sync, assert_repaired, differences, pids};

/// `web` twice on one bridge, `db` on another, `proxy` on both. `web` is well as long as there is a file `/state/web-N`.
fn stack() -> String {
    format!(
        r#"
name = "shop"

[bridge.front]
subnet = "10.70.0.0/26"
subnet6 = "fd70::/64"

[bridge.back]
subnet = "10.71.0.0/26"
ipv6 = false
internal = true

[container.web]
image = "host:"
{WAITS}
bridge = ["front"]
replicas = 2
mount = [{{ bind = "./state", target = "/state", ro = true }}]
health = {{ exec = ["sh", "-c", "test -e /state/$$(hostname)"], interval = "100ms", retries = 1, start_period = "0s" }}

[container.db]
image = "host:"
{WAITS}
bridge = ["back"]

[container.proxy]
image = "host:"
{WAITS}
bridge = ["front", "back"]
"#
    )
}

/// With the host's `/etc/resolv.conf` naming the neighbour.
fn running() -> Sandbox {
    let host = Sandbox::new();
    host.write("resolv.conf", &format!("nameserver {NEIGHBOUR}\nsearch lan\n"));
    host.sh("mount --bind resolv.conf /etc/resolv.conf");
    host.write("state/web-1", "");
    host.write("state/web-2", "");
    apply(&host, &stack());
    until("both are well", || ask(&host, "proxy", "10.70.0.1", "web A").split(' ').count() == 2);
    host
}

/// A question to a server, `NAME TYPE [tcp] [SIZE]`, by one in the network namespace of a container; the records of the answer
/// in order, or its code, `cut` where it is cut.
const CLIENT: &str = r#"
use IO::Socket::IP; use Socket;
my ($server, $name, $type, @more) = @ARGV;
my %types = (A => 1, SOA => 6, PTR => 12, TXT => 16, AAAA => 28, SRV => 33);
my $tcp = grep { $_ eq "tcp" } @more;
my ($size) = grep { /^\d+$/ } @more;
my $q = pack("nnnnnn", 4711, 0x0100, 1, 0, 0, $size ? 1 : 0)
  . join("", map { pack("C/a*", $_) } split(/\./, $name)) . "\0" . pack("nn", $types{$type}, 1);
$q .= "\0" . pack("nnNn", 41, $size, 0, 0) if $size;
my $s = IO::Socket::IP->new(PeerHost => $server, PeerPort => 53, Proto => $tcp ? "tcp" : "udp", Timeout => 2)
  or do { print "none"; exit };
$SIG{ALRM} = sub { print "none"; exit }; alarm 9;
$s->syswrite($tcp ? pack("n", length $q) . $q : $q);
my $r = "";
if ($tcp) {
  while (length $r < 2 || length $r < 2 + unpack("n", $r)) { $s->sysread(my $more, 65535) or do { print "none"; exit }; $r .= $more }
  $r = substr($r, 2);
} else { defined $s->sysread($r, 65535) or do { print "none"; exit } }
my ($id, $flags, $questions, $answers) = unpack("nnnn", $r);
die "another number" if $id != 4711;
if ($flags & 0x0200) { print "cut"; exit }
if (!$answers) { print "code " . ($flags & 15); exit }
sub name { my $at = shift; my @labels; my $end;
  while (my $l = unpack("C", substr($r, $at, 1))) {
    if ($l >= 192) { $end //= $at + 2; $at = unpack("n", substr($r, $at, 2)) & 0x3fff; next }
    push @labels, substr($r, $at + 1, $l); $at += $l + 1 }
  return (join(".", @labels), $end // $at + 1) }
my (undef, $at) = name(12); $at += 4; my @found;
for (1 .. $answers) {
  (undef, $at) = name($at);
  my ($kind, undef, undef, $length) = unpack("nnNn", substr($r, $at, 10)); $at += 10;
  my $data = substr($r, $at, $length);
  push @found, $kind == 1 ? inet_ntoa($data) : $kind == 28 ? Socket::inet_ntop(AF_INET6, $data)
    : $kind == 12 ? (name($at))[0] : $kind == 33 ? (name($at + 6))[0] . ":" . unpack("x4 n", $data) : "type$kind";
  $at += $length }
print join(" ", sort @found);
"#;

fn ask(host: &Sandbox, container: &str, server: &str, question: &str) -> String {
    host.write("client.pl", CLIENT);
    host.sh(&format!("nsenter --net --target {} perl client.pl {server} {question}", host.init_of(container)))
}

/// A name server at this address, where `command` runs a shell: `known.example` is 192.0.2.77, `big.example` has many addresses, all else is nowhere. It
/// writes a line for each question.
fn upstream(host: &Sandbox, at: &str, mut command: Command) -> Child {
    let script = r#"
use IO::Socket::INET; use IO::Select; $| = 1;
my $u = IO::Socket::INET->new(LocalAddr => $ARGV[0], LocalPort => 53, Proto => "udp") or die;
my $t = IO::Socket::INET->new(LocalAddr => $ARGV[0], LocalPort => 53, Listen => 9, ReuseAddr => 1) or die;
sub reply { my ($q, $tcp) = @_;
  my $at = 12; my @labels;
  while (my $l = unpack("C", substr($q, $at, 1))) { push @labels, substr($q, $at + 1, $l); $at += $l + 1 }
  my $name = lc join(".", @labels); my $question = substr($q, 12, $at + 5 - 12);
  print "$name" . ($tcp ? " tcp" : "") . "\n";
  my $count = $name eq "known.example" ? 1 : $name eq "big.example" ? 100 : 0;
  my $cut = $count > 1 && !$tcp;
  my $soa = "\0\0" . pack("N5", 1, 60, 60, 60, 60);
  my $head = pack("nnnnnn", unpack("n", $q), 0x8180 | ($cut ? 0x0200 : 0) | ($count ? 0 : 3), 1, $cut ? 0 : $count, $count ? 0 : 1, 0);
  return $head . $question . ($count ? $cut ? "" : join("", map { pack("nnnNnC4", 0xc00c, 1, 1, 60, 4, 192, 0, 2, 76 + $_) } 1 .. $count)
    : "\0" . pack("nnNn", 6, 1, 60, length $soa) . $soa) }
my $select = IO::Select->new($u, $t);
while (my @ready = $select->can_read) { for my $s (@ready) {
  if ($s == $u) { $u->recv(my $q, 4096); $u->send(reply($q, 0)) }
  else { my $c = $t->accept; $c->sysread(my $q, 4096); my $r = reply(substr($q, 2), 1); $c->syswrite(pack("n", length $r) . $r) } } }
"#;
    let path = host.write("upstream.pl", script);
    let log = fs::File::create(host.path().join("asked")).unwrap();
    let server = command.arg(path).arg(at).stdout(log).stderr(Stdio::null()).spawn().expect("a server");
    until("the upstream answers", || host.sh(&format!("perl client.pl {at} ready.example A")) == "code 3");
    server
}

/// A name server on the neighbour.
fn far(host: &Sandbox, neighbour: &Neighbour) -> Child {
    upstream(host, NEIGHBOUR, neighbour.command("exec perl \"$0\" \"$1\""))
}

fn asked(host: &Sandbox) -> Vec<String> {
    let text = fs::read_to_string(host.path().join("asked")).unwrap_or_default();
    text.lines().filter(|name| *name != "ready.example").map(str::to_string).collect()
}

/// The numbers of the resolver's processes: of the keeper, and of the one that answers.
fn resolver(host: &Sandbox) -> (i64, i64) {
    let path = format!("/proc/{}/root{}", host.pid(), host.run_dir().join("shop/.resolver/processes.json").display());
    let read = || -> Option<(i64, i64)> {
        let processes: serde_json::Value = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        Some((processes["keeper"]["pid"].as_i64()?, processes["server"]["pid"].as_i64()?))
    };
    let mut found = None;
    until("the resolver runs", || {
        found = read();
        found.is_some()
    });
    found.unwrap_or_default()
}

#[test]
fn containers_resolve_each_other_over_udp_and_tcp() {
    let host = running();
    let front = |question| ask(&host, "proxy", "10.70.0.1", question);
    for question in ["web A", "web.shop A", "WEB.Shop A tcp", "web.shop A 1232"] {
        assert_eq!(front(question), "10.70.0.2 10.70.0.3", "{question}");
    }
    assert_eq!(front("web AAAA"), "fd70::2 fd70::3");
    assert_eq!(front("web-2.shop A tcp"), "10.70.0.3");
    assert_eq!(front("_80._tcp.web SRV"), "web-1.shop:80 web-2.shop:80");
    assert_eq!(front("3.0.70.10.in-addr.arpa PTR"), "web-2.shop");
    assert_eq!(front("web TXT"), "code 0");
    assert_eq!(front("nobody.shop A"), "code 3");
    assert_eq!(ask(&host, "proxy", "fd70::1", "web A"), "10.70.0.2 10.70.0.3");
    // Each sees the bridges that it is on.
    assert_eq!(front("db A"), "10.71.0.2");
    assert_eq!(ask(&host, "web-1", "10.70.0.1", "db A"), "code 3");
    // As programs do it, by the container's own resolv.conf.
    let outcome = host.stack(&["exec", "proxy", "busybox", "nslookup", "-type=a", "web"]);
    assert!(outcome.stdout.contains("10.70.0.2") && outcome.stdout.contains("10.70.0.3"), "{outcome:?}");
    assert_eq!(host.ok(&["exec", "db", "cat", "/etc/resolv.conf"]), "nameserver 10.71.0.1\nsearch shop lan\n");
}

#[test]
fn who_is_not_well_is_no_answer_and_is_one_again_when_he_is() {
    let host = running();
    fs::remove_file(host.path().join("state/web-1")).unwrap();
    until("the ill one is left out", || ask(&host, "proxy", "10.70.0.1", "web A") == "10.70.0.3");
    assert_eq!(ask(&host, "proxy", "10.70.0.1", "web-1 A"), "code 0");
    host.write("state/web-1", "");
    until("it is back", || ask(&host, "proxy", "10.70.0.1", "web A") == "10.70.0.2 10.70.0.3");
    // Who is killed with his monitor says nothing any more.
    let monitor = host.ps()["web-2"]["run"]["monitor"].as_i64().unwrap();
    host.sh(&format!("kill -9 {monitor}"));
    until("the dead one is left out", || ask(&host, "proxy", "10.70.0.1", "web A") == "10.70.0.2");
    host.ok(&["up"]);
    until("it is back", || ask(&host, "proxy", "10.70.0.1", "web A") == "10.70.0.2 10.70.0.3");
}

#[test]
fn all_else_is_asked_of_the_host_s_servers_and_remembered() {
    let host = running();
    let neighbour = Neighbour::of(&host);
    let mut server = far(&host, &neighbour);
    let front = |question| ask(&host, "proxy", "10.70.0.1", question);
    for _ in 0..3 {
        assert_eq!(front("known.example A"), "192.0.2.77");
        assert_eq!(front("nowhere.example A"), "code 3");
    }
    assert_eq!(asked(&host), ["known.example", "nowhere.example"]);
    assert_eq!(front("big.example A"), "cut");
    assert_eq!(front("big.example A tcp").split(' ').count(), 100);
    // Kept now, and too long for one who takes little.
    assert_eq!(front("big.example A"), "cut");
    assert_eq!(asked(&host)[2..], ["big.example", "big.example tcp"]);
    // Names and addresses of the stack are asked of nobody.
    assert_eq!([front("x.shop A"), front("9.0.70.10.in-addr.arpa PTR")], ["code 3", "code 3"]);
    // And who is on internal bridges alone asks nobody outside.
    assert_eq!(ask(&host, "db", "10.71.0.1", "known.example A"), "code 3");
    assert_eq!(asked(&host).len(), 4);
    let _ = server.kill();
    let _ = server.wait();
    assert_eq!(front("other.example A"), "code 2", "nobody answers");
}

#[test]
fn a_server_on_the_host_s_loopback_is_asked_as_soon_as_the_file_names_it() {
    let host = running();
    let mut server = upstream(&host, "127.0.0.53", host.inside("perl"));
    // In place: the file is bound to its place.
    fs::write(host.path().join("resolv.conf"), "nameserver 127.0.0.53\noptions edns0 trust-ad\n").unwrap();
    assert_eq!(ask(&host, "proxy", "10.70.0.1", "known.example A"), "192.0.2.77");
    assert_eq!(asked(&host), ["known.example"]);
    let _ = server.kill();
    let _ = server.wait();
}

#[test]
fn nobody_else_gets_an_answer() {
    let host = running();
    let neighbour = Neighbour::of(&host);
    let mut server = far(&host, &neighbour);
    neighbour.sh(&format!("ip route add 10.70.0.0/15 via {HOST}"));
    let outside =
        |question: &str| neighbour.sh(&format!("perl {}/client.pl 10.70.0.1 {question}", host.path().display()));
    for round in ["with the table", "without it"] {
        for question in ["web A", "web A tcp", "known.example A"] {
            assert_eq!(outside(question), "none", "{question} {round}");
        }
        host.sh("nft flush ruleset");
    }
    assert_eq!(asked(&host), Vec::<String>::new());
    let _ = server.kill();
    let _ = server.wait();
}

#[test]
fn a_killed_resolver_is_started_again_and_a_killed_keeper_is_repaired() {
    let host = running();
    let before = pids(&host);
    let (keeper, server) = resolver(&host);
    host.sh(&format!("kill -9 {server}"));
    until("another one answers", || ask(&host, "proxy", "10.70.0.1", "web A") == "10.70.0.2 10.70.0.3");
    until("the keeper says so", || {
        let now = resolver(&host);
        now.0 == keeper && now.1 != server
    });
    assert_in_sync(&host);
    host.sh(&format!("kill -9 {keeper}"));
    until("its server goes too", || ask(&host, "proxy", "10.70.0.1", "web A") == "none");
    assert_repaired(&host, &["resolver", "repair", "does not run"], &before, &[]);
    assert_eq!(ask(&host, "proxy", "10.70.0.1", "web A"), "10.70.0.2 10.70.0.3");
}

#[test]
fn new_names_and_bridges_are_answered_with_nobody_restarted() {
    let host = running();
    let (_, server) = resolver(&host);
    let more = format!("{}\n[container.cache]\nimage = \"host:\"\n{WAITS}\nbridge = [\"back\"]\n", stack());
    host.write("stack.toml", &more);
    assert!(differences(&host).contains("names or bridges differ"));
    host.ok(&["up"]);
    assert_eq!(ask(&host, "db", "10.71.0.1", "cache A"), "10.71.0.4");
    assert_eq!(resolver(&host).1, server, "it was only told");
    // A bridge that somebody deleted comes back with its containers; the resolver is still there.
    let bridge = host.sh("ip -br -4 addr | grep 10.71.0.1 | cut -d' ' -f1");
    host.sh(&format!("ip link del {bridge}"));
    host.ok(&["up"]);
    assert_in_sync(&host);
    assert_eq!(ask(&host, "db", "10.71.0.1", "cache A"), "10.71.0.4");
    host.ok(&["down"]);
    host.sh("umount /etc/resolv.conf");
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

#[test]
fn a_change_is_answered_at_once_and_an_idle_resolver_sleeps() {
    let host = running();
    let (_, server) = resolver(&host);
    let ticks = || -> u64 {
        let stat = fs::read_to_string(format!("/proc/{server}/stat")).unwrap();
        let fields: Vec<&str> = stat[stat.rfind(')').unwrap()..].split(' ').collect();
        fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()
    };
    let begun = ticks();
    std::thread::sleep(Duration::from_secs(1));
    assert!(ticks() - begun <= 5, "its instances' probes do not wake it");
    // From the change of the status to the answer; the probe and the client are not counted.
    let status = format!("/proc/{}/root{}", host.pid(), host.run_dir().join("shop/web-1/status.json").display());
    let is_ill = || fs::read_to_string(&status).is_ok_and(|text| text.contains("\"unhealthy\""));
    fs::remove_file(host.path().join("state/web-1")).unwrap();
    until("the status says so", is_ill);
    let begun = Instant::now();
    let seen = || ask(&host, "proxy", "10.70.0.1", "web A") == "10.70.0.3";
    assert!(seen() || seen(), "the first or the second question, {:?} after", begun.elapsed());
}
