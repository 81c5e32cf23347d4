//! Ring 5: one container takes the place of another while people are served. What they notice is counted.

#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/shop.rs"]
mod shop;

use std::collections::BTreeSet;
use std::process::{Child, Stdio};

use sandbox::{Sandbox, until};
use shop::{answer, answers, apply, assert_in_sync, assert_says, differences, pids, running, serves, serves_udp};

/// A service that is replaced start-first, and one who calls it by name.
fn text(colour: &str) -> String {
    format!(
        "name = \"shop\"\n[bridge.front]\nsubnet = \"10.70.0.0/26\"\n\
         [container.web]\nimage = \"host:\"\n{}\nbridge = [\"front\"]\nport = [\"8080:80\"]\n\
         env = {{ COLOUR = \"{colour}\" }}\nhealth = {{ tcp = 80, interval = \"100ms\", retries = 50 }}\n\
         [container.idle]\nimage = \"host:\"\n{}\nbridge = [\"front\"]\nafter = {{ web = \"healthy\" }}\n",
        serves(80, "$$ENV{COLOUR}"),
        shop::WAITS
    )
}

fn address_in(host: &Sandbox, container: &str, name: &str) -> String {
    let line = host.ok(&["exec", container, "getent", "hosts", name]);
    line.split_whitespace().next().expect("an address").to_string()
}

#[test]
fn a_healthy_new_one_takes_over_and_then_the_old_one_goes() {
    let host = running(&text("red"));
    assert!(answers(&host, 8080).starts_with("red"));
    let service = address_in(&host, "idle", "web");
    let (before, hosts) = (pids(&host), host.ok(&["exec", "idle", "cat", "/etc/hosts"]));
    host.write("stack.toml", &text("green"));
    let words = [
        "container web",
        "replace",
        "env.COLOUR",
        "red → green",
        "start-first: `web.1` takes over from `web`",
        "no interruption",
        "idle was started after it",
        "1 change",
    ];
    assert_says(&differences(&host), &words);
    host.ok(&["up"]);
    assert_in_sync(&host);
    assert!(answers(&host, 8080).starts_with("green"));
    let now = pids(&host);
    assert_eq!(now.keys().collect::<Vec<_>>(), ["idle", "web.1"]);
    assert_eq!(now["idle"], before["idle"]);
    // Its peers call it by the same address as before.
    assert_eq!(host.ok(&["exec", "idle", "cat", "/etc/hosts"]), hosts);
    assert_eq!(address_in(&host, "idle", "web"), service);
    let call = ["exec", "idle", "bash", "-c", "exec 3<>/dev/tcp/web/80; cat <&3"];
    assert_says(&host.ok(&call), &["green"]);
    assert_eq!(host.ok(&["exec", "web", "sh", "-c", "echo $COLOUR; hostname"]), "green\nweb\n");
    // And back: the names are taken by turns.
    apply(&host, &text("blue"));
    assert!(answers(&host, 8080).starts_with("blue"));
    assert_eq!(pids(&host).into_keys().collect::<Vec<_>>(), ["idle", "web"]);
    host.ok(&["down"]);
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

#[test]
fn a_new_one_that_does_not_get_well_is_taken_back() {
    let host = running(&text("red"));
    answers(&host, 8080);
    let before = pids(&host);
    for (bad, words) in [
        (
            text("green").replace("LocalPort => 80", "LocalPort => 81").replace("retries = 50", "retries = 2"),
            "unhealthy",
        ),
        (text("green").replace("or die;", "or die; print STDERR \"no licence\\n\"; exit 7;"), "ended with status 7"),
    ] {
        host.write("stack.toml", &bad);
        let outcome = host.stack(&["up"]);
        assert_eq!(outcome.code, 1, "{}\n{}", outcome.stdout, outcome.stderr);
        let said = outcome.stdout + &outcome.stderr;
        assert_says(&said, &[words, "`web.1` was taken back, and `web` goes on serving"]);
        assert!(words.contains("unhealthy") || said.contains("no licence"), "its last lines are shown: {said}");
        assert!(answers(&host, 8080).starts_with("red"));
        assert_eq!(pids(&host), before);
    }
    host.write("stack.toml", &text("red"));
    assert_in_sync(&host);
}

#[test]
fn one_that_fails_after_it_has_taken_over_is_led_back() {
    let host = running(&text("red"));
    answers(&host, 8080);
    let before = pids(&host);
    // It dies of its first customer.
    let bad = text("green")
        .replace("retries = 50 }", "retries = 50 }\nmonitor = \"60s\"")
        .replace("print $$c", "exit 9 if $$c->peerhost ne \"10.70.0.1\"; print $$c")
        .replace("{ tcp = 80,", "{ exec = [\"true\"],");
    let bad = bad.replace("exit 9 if $$c->peerhost ne \"10.70.0.1\"", "exit 9");
    host.write("stack.toml", &bad);
    let up = host.command(&["up"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("it has taken over and dies", || answer(&host, 8080).is_none_or(|text| !text.starts_with("red")));
    let outcome = sandbox::outcome(up.wait_with_output().unwrap());
    assert_eq!(outcome.code, 1, "{}\n{}", outcome.stdout, outcome.stderr);
    assert!(answers(&host, 8080).starts_with("red"));
    assert_eq!(pids(&host), before);
}

#[test]
fn replicas_share_a_port_and_a_name_and_the_unhealthy_ones_are_left_out() {
    let health = r#"health = { exec = ["test", "!", "-e", "/tmp/sick"], interval = "100ms", retries = 1 }"#;
    let text = |colour: &str| {
        format!(
            "name = \"shop\"\n[bridge.front]\n[container.web]\nimage = \"host:\"\n{}\nreplicas = 3\n{health}\n\
             bridge = [\"front\"]\nport = [\"8080:80\"]\nenv = {{ COLOUR = \"{colour}\" }}\n\
             [container.idle]\nimage = \"host:\"\n{}\nbridge = [\"front\"]\nafter = {{ web = \"healthy\" }}\n",
            serves(80, "$$ENV{COLOUR} \" . `hostname` . \""),
            shop::WAITS
        )
    };
    let host = running(&text("red"));
    let who = |host: &Sandbox| -> BTreeSet<String> {
        (0..6)
            .filter_map(|_| answer(host, 8080))
            .filter_map(|text| Some(text.split_whitespace().nth(1)?.into()))
            .collect()
    };
    let all: BTreeSet<String> = ["web-1", "web-2", "web-3"].map(String::from).into();
    until("all have a share", || who(&host) == all);
    host.ok(&["exec", "web-2", "touch", "/tmp/sick"]);
    let two: BTreeSet<String> = ["web-1", "web-3"].map(String::from).into();
    until("the sick one is left out", || who(&host) == two);
    assert_in_sync(&host);
    let call = "for i in 1 2 3 4; do exec 3<>/dev/tcp/web/80; cat <&3; done";
    let by_name = host.ok(&["exec", "idle", "bash", "-c", call]);
    assert!(by_name.contains("web-1") && by_name.contains("web-3") && !by_name.contains("web-2"), "{by_name}");
    host.ok(&["exec", "web-2", "rm", "/tmp/sick"]);
    until("it is well again", || who(&host) == all);
    // One after the other.
    host.write("stack.toml", &text("green"));
    host.ok(&["up"]);
    assert_in_sync(&host);
    assert_eq!(pids(&host).into_keys().collect::<Vec<_>>(), ["idle", "web-1.1", "web-2.1", "web-3.1"]);
    until("all have a share", || who(&host) == all);
    assert!(answers(&host, 8080).starts_with("green"));
}

/// A client in the sandbox that counts what goes wrong until its input ends: asks without a pause, each time anew.
fn customer(host: &Sandbox, program: &str) -> Child {
    let mut command = host.inside("perl");
    command.args(["-MIO::Socket::INET", "-MTime::HiRes=time,sleep", "-e", program]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("perl")
}

fn count(mut customer: Child) -> String {
    drop(customer.stdin.take());
    let output = customer.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Ends when there is something to read or an end of file on its input.
const GOES_ON: &str = r#"sub goes_on { my $r = ""; vec($r, 0, 1) = 1; return !select($r, undef, undef, 0); }"#;

#[test]
fn twenty_replacements_under_load_lose_nothing() {
    let udp = |colour: &str| {
        format!(
            "{}[container.echo]\nimage = \"host:\"\n{}\nbridge = [\"front\"]\nport = [\"5353:53/udp\"]\n\
             env = {{ COLOUR = \"{colour}\" }}\nhealth = {{ exec = [\"grep\", \"-q\", \":0035 \", \"/proc/net/udp\"], interval = \"100ms\", retries = 50 }}\nmonitor = \"0s\"\n",
            text(colour),
            serves_udp(53, "$$ENV{COLOUR}")
        )
    };
    let host = running(&udp("c0"));
    answers(&host, 8080);
    let tcp = customer(
        &host,
        &format!(
            r#"{GOES_ON} my ($ok, $refused, $reset) = (0, 0, 0);
            while (goes_on()) {{
                my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:8080", Timeout => 10) or do {{ $refused++; next }};
                my $line = <$s>; if (defined $line) {{ $ok++ }} else {{ $reset++ }} sleep 0.001;
            }}
            print "$ok $refused $reset";"#
        ),
    );
    // One flow that is never silent.
    let datagrams = customer(
        &host,
        &format!(
            r#"{GOES_ON} my ($ok, $lost, $late, $now) = (0, 0, 0, 0); my %seen;
            my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:5353", Proto => "udp") or die;
            while (goes_on()) {{
                $s->send("x"); my $r = ""; vec($r, fileno($s), 1) = 1;
                if (select($r, undef, undef, 0.5) && defined $s->recv(my $d, 99)) {{ $ok++; $now = 0; $seen{{(split " ", $d)[0]}}++ }} else {{ $lost++; $late++ if $now++ }}
                sleep 0.001;
            }}
            print "$ok $lost $late " . keys %seen;"#
        ),
    );
    for round in 1..=20 {
        host.write("stack.toml", &udp(&format!("c{round}")));
        host.ok(&["up"]);
    }
    let numbers = |text: String| -> Vec<u32> { text.split(' ').map(|word| word.parse().expect("a number")).collect() };
    let (tcp, datagrams) = (numbers(count(tcp)), numbers(count(datagrams)));
    assert!(tcp[0] > 100, "it was a load: {tcp:?}");
    assert_eq!(tcp[1..], [0, 0], "no connection was refused or reset: {tcp:?}");
    assert!(datagrams[0] > 100, "it was a load: {datagrams:?}");
    // The answer that is under way while its flow is led elsewhere finds no way back. None after it is lost.
    assert!(datagrams[1] <= 20 && datagrams[2] == 0, "no datagram was lost after a switch: {datagrams:?}");
    assert!(datagrams[3] >= 15, "the flow went along: {datagrams:?}");
}

#[test]
fn a_long_answer_is_finished_by_the_old_one() {
    let slow = |colour: &str| {
        text(colour).replace("print $$c", "print $$c \"first \"; $$c->flush; fork and next; sleep 2; print $$c")
    };
    let host = running(&slow("red"));
    let client = host
        .inside("sh")
        .args(["-c", "exec 3<>/dev/null; busybox nc -w 9 127.0.0.1 8080"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    apply(&host, &slow("green"));
    let text = String::from_utf8_lossy(&client.wait_with_output().unwrap().stdout).into_owned();
    assert!(text.contains("first") && text.contains("red"), "{text}");
}
