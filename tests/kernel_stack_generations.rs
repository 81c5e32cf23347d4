//! Ring 5: what was brought up is kept, and one can go back to it: to its file, the files it read, and its images. And a
//! plan that is kept is carried out while all that it was made from is as it was.

#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/shop.rs"]
mod shop;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use sandbox::Sandbox;
use serde_json::Value;
use shop::{cgroup, limit, limit_file};

/// Of memory, by the kernel's files on cgroup v1 and v2.
const MEMORY: (&str, &str, &str) = ("memory", "memory.limit_in_bytes", "memory.max");

const TEXT: &str = r#"
name = "shop"

[container.web]
image = "host:"
env_file = ["level.env"]
env = { TAG = "${TAG}", API_TOKEN = "${API_TOKEN}" }
command = ["sleep", "3600"]
memory = "64MiB"
mount = [{ bind = "app.conf", target = "/etc/app.conf", on_change = "none" }]
secret = [{ file = "key", mode = "0400" }]

[container.idle]
image = "host:"
command = ["sleep", "3600"]
"#;

struct Shop(Sandbox);

impl Shop {
    fn new() -> Self {
        let host = Sandbox::new();
        host.write("stack.toml", TEXT);
        host.write("level.env", "LEVEL=info\n");
        host.write("app.conf", "first\n");
        host.write("key", "hush-hush");
        Shop(host)
    }

    fn stack(&self, args: &[&str], tag: &str) -> sandbox::Outcome {
        let mut command = self.0.command(args);
        sandbox::outcome(command.env("TAG", tag).env("API_TOKEN", "tiny-secret").output().expect("nsenter"))
    }

    fn ok(&self, args: &[&str], tag: &str) -> String {
        let said = self.stack(args, tag);
        assert_eq!(said.code, 0, "{args:?}\n{}\n{}", said.stdout, said.stderr);
        said.stdout
    }

    /// Number, whether it runs, what it came from.
    fn history(&self) -> Vec<(u64, bool, Option<u64>)> {
        let document: Value = serde_json::from_str(&self.ok(&["history", "--json"], "2")).expect("JSON");
        let generations = document["generations"].as_array().expect("generations");
        generations
            .iter()
            .map(|one| {
                let number = one["number"].as_u64().expect("a number");
                (number, one["runs"].as_bool().expect("it is known"), one["from"].as_u64())
            })
            .collect()
    }

    fn memory(&self) -> PathBuf {
        limit_file(&cgroup(&self.0, MEMORY.0, "shop/web"), MEMORY.1, MEMORY.2)
    }

    fn pid(&self, instance: &str) -> i64 {
        let document: Value = serde_json::from_str(&self.ok(&["ps", "--json"], "2")).expect("JSON");
        let containers = document["stacks"][0]["containers"].as_array().expect("containers");
        let found = containers.iter().find(|one| one["name"] == instance);
        found.and_then(|one| one["run"]["pid"].as_i64()).expect("it runs")
    }

    /// What the running container sees.
    fn sees(&self) -> String {
        let line = "echo $LEVEL $TAG $(cat /etc/app.conf) $(cat /run/secrets/key)";
        self.ok(&["exec", "web", "sh", "-c", line], "2").trim().to_string()
    }
}

#[test]
fn one_goes_back_to_the_file_the_files_and_the_variables_of_a_generation() {
    let shop = Shop::new();
    shop.ok(&["up"], "1");
    let idle = shop.pid("idle");
    shop.0.write("level.env", "LEVEL=debug\n");
    shop.0.write("app.conf", "second\n");
    shop.ok(&["up"], "2");
    assert_eq!(shop.sees(), "debug 2 second hush-hush");
    shop.ok(&["up"], "2");
    assert_eq!(shop.history(), [(1, false, None), (2, true, None)], "nothing changed, nothing is kept");
    let said = shop.ok(&["history"], "2");
    assert!(said.contains("replace container web") && said.contains("runs"), "{said}");

    let said = shop.ok(&["rollback"], "2");
    assert!(said.contains("back to generation 1") && said.contains("env.LEVEL"), "{said}");
    assert_eq!(shop.sees(), "info 1 first hush-hush");
    assert_eq!(shop.pid("idle"), idle, "what is the same in both is not touched");
    assert_eq!(shop.history(), [(1, false, None), (2, false, None), (3, true, Some(1))]);
    assert!(shop.ok(&["rollback", "1"], "2").contains("in sync"));
    assert_eq!(fs::read_to_string(shop.0.path().join("app.conf")).expect("it is there"), "second\n");

    // The user's own file is as it was.
    assert_eq!(shop.stack(&["diff"], "2").code, 2);
    shop.ok(&["up"], "2");
    assert_eq!(shop.sees(), "debug 2 second hush-hush");

    // By name, when the file is no longer right; and a secret is never kept.
    shop.0.write("stack.toml", "name = ");
    shop.0.write("key", "changed");
    let said = shop.stack(&["rollback", "1", "--name", "shop"], "2");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("the secret") && said.stderr.contains("another one"), "{}", said.stderr);
    assert_eq!(shop.stack(&["rollback", "77", "--name", "shop"], "2").code, 1);
}

#[test]
fn secrets_are_not_kept_and_what_is_kept_is_root_s_and_bounded() {
    let shop = Shop::new();
    for tag in ["1", "2", "3", "4"] {
        shop.ok(&["--generations", "2", "up"], tag);
    }
    let numbers: Vec<u64> = shop.history().iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, [3, 4]);
    let folder = shop.0.data_dir().join("generations/shop");
    let text = shop.0.sh(&format!("cat $(find {} -type f)", folder.display()));
    assert!(text.contains("LEVEL=info") && text.contains("first"), "{text}");
    assert!(!text.contains("hush-hush") && !text.contains("tiny-secret"), "{text}");
    assert_eq!(fs::metadata(&folder).expect("it is there").permissions().mode() & 0o777, 0o700);
    shop.ok(&["down"], "4");
    assert!(shop.history().iter().all(|(_, runs, _)| !runs));
    shop.ok(&["rollback"], "1");
    assert_eq!(shop.sees(), "info 4 first hush-hush", "where nothing runs, to what ran last");
    shop.ok(&["down", "--volumes=shop"], "4");
    assert!(!folder.exists());
}

#[test]
fn a_kept_plan_is_carried_out_while_nothing_has_moved() {
    let shop = Shop::new();
    shop.ok(&["up"], "1");
    shop.0.write("stack.toml", &TEXT.replace("64MiB", "96MiB"));
    let plan = || assert_eq!(shop.stack(&["diff", "-o", "the.plan"], "1").code, 2);
    let refused = |tag: &str, what: &[&str]| {
        let said = shop.stack(&["up", "the.plan"], tag);
        assert_eq!(said.code, 1, "{said:?}");
        for words in what {
            assert!(said.stderr.contains(words), "no `{words}` in {}", said.stderr);
        }
        let moved = said.stderr.lines().filter(|line| line.starts_with("  ") && !line.contains("hint:")).count();
        assert_eq!(moved, what.len(), "{}", said.stderr);
    };
    let memory = || limit(&shop.0, "shop/web", MEMORY);
    plan();
    let text = fs::read_to_string(shop.0.path().join("the.plan")).expect("a plan");
    assert!(!text.contains("hush-hush") && !text.contains("tiny-secret"), "{text}");
    refused("2", &["variable TAG is another one now"]);
    shop.0.write("app.conf", "moved\n");
    refused("1", &["app.conf is another one now"]);
    shop.0.write("app.conf", "first\n");
    shop.0.write("key", "moved");
    refused("1", &["key is another one now"]);
    shop.0.write("key", "hush-hush");
    fs::write(shop.memory(), "40960000").expect("a limit");
    refused("1", &["container web is another one now"]);
    assert_eq!(memory(), "40960000");
    fs::write(shop.memory(), "67108864").expect("a limit");
    shop.ok(&["up", "the.plan"], "1");
    assert_eq!(memory(), "100663296");
    refused("1", &["container web is another one now"]);
    plan_of_nothing(&shop);
}

/// A host that is in sync has a plan too.
fn plan_of_nothing(shop: &Shop) {
    shop.ok(&["diff", "-o", "the.plan"], "1");
    assert!(shop.ok(&["up", "the.plan"], "1").contains("in sync"));
}

#[test]
fn a_repair_puts_back_what_others_changed_and_nothing_else() {
    let shop = Shop::new();
    shop.ok(&["up"], "1");
    let repair = || shop.stack(&["up", "--repair"], "1");
    let memory = || limit(&shop.0, "shop/web", MEMORY);
    assert_eq!((repair().code, repair().stdout), (0, String::new()), "a timer's log is short");
    fs::write(shop.memory(), "40960000").expect("a limit");
    assert_eq!(repair().code, 0);
    assert_eq!(memory(), "67108864");
    let event: Value = serde_json::from_str(&shop.ok(&["events", "--json", "-n", "1"], "1")).expect("JSON");
    assert_eq!((&event["by"], &event["resource"]), (&"repair".into(), &"container web".into()));

    shop.0.write("stack.toml", &TEXT.replace("64MiB", "96MiB"));
    fs::write(shop.memory(), "40960000").expect("a limit");
    let said = repair();
    assert!(said.code == 0 && said.stderr.contains("not what was brought up last"), "{said:?}");
    assert_eq!(memory(), "40960000", "an edited file waits for `up`");
    shop.0.write("stack.toml", TEXT);
    shop.ok(&["down"], "1");
    assert_eq!(repair().code, 0);
    assert_eq!(shop.0.leftovers(), Vec::<String>::new(), "what was taken down stays so");
}

#[test]
fn one_goes_back_to_an_included_file_and_to_the_profiles_too() {
    let shop = Shop::new();
    let including = "name = \"shop\"\ninclude = [\"part.toml\"]\n[override.loud.container.web.env]\nLEVEL = \"loud\"\n";
    shop.0.write("stack.toml", including);
    let part = |word: &str| {
        let text = "[container.web]\nimage = \"host:\"\ncommand = [\"sleep\", \"3600\"]\nenv = { LEVEL = \"quiet\", WORD = \"%\" }\n";
        shop.0.write("part.toml", &text.replace('%', word));
    };
    let sees = || shop.ok(&["exec", "web", "sh", "-c", "echo $LEVEL $WORD"], "1").trim().to_owned();
    part("first");
    shop.ok(&["up", "--profile", "loud"], "1");
    assert_eq!(sees(), "loud first");
    part("second");
    shop.ok(&["up"], "1");
    assert_eq!(sees(), "quiet second");
    fs::remove_file(shop.0.path().join("part.toml")).expect("it is there");
    shop.ok(&["rollback", "--name", "shop"], "1");
    part("second");
    assert_eq!(sees(), "loud first");
}
