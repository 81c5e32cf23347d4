//! Ring 5: images that are built, by Dockerfiles and by keys, without a network: what they hold, what is kept of earlier
//! builds, and what a hostile context comes to.

#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/shop.rs"]
mod shop;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use sandbox::{Outcome, Sandbox};
use shop::{assert_says, output_of};

/// A sandbox with a folder `base`, which is an image with busybox and a user.
fn host() -> Sandbox {
    let host = Sandbox::new();
    let folder = host.path().join("base");
    for name in ["bin", "etc", "real"] {
        fs::create_dir_all(folder.join(name)).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy("/usr/bin/busybox", folder.join("bin/busybox")).expect("busybox-static is installed");
    for program in [
        "sh", "echo", "id", "pwd", "env", "cat", "ls", "touch", "mkdir", "rm", "chmod", "ln", "sleep", "stat", "find",
        "ip", "kill",
    ] {
        symlink("busybox", folder.join("bin").join(program)).unwrap();
    }
    symlink("real", folder.join("linked")).unwrap();
    fs::write(folder.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1234:1235::/srv/app:/bin/sh\n").unwrap();
    fs::write(folder.join("etc/group"), "root:x:0:\napp:x:1235:\n").unwrap();
    fs::create_dir(host.path().join("ctx")).unwrap();
    host
}

/// A stack of one container with an image of this Dockerfile.
fn with_dockerfile(host: &Sandbox, dockerfile: &str) {
    host.write("ctx/Dockerfile", dockerfile);
    host.write("stack.toml", STACK);
}

const STACK: &str = "name = \"shop\"\n[image.base]\nfrom = \"dir:base\"\n[image.app.build]\ndockerfile = \
                     \"ctx/Dockerfile\"\n[container.job]\nimage = \"app\"\n";

/// What the container of this Dockerfile's image writes.
fn said(host: &Sandbox, dockerfile: &str) -> String {
    with_dockerfile(host, dockerfile);
    host.ok(&["up"]);
    let output = output_of(host, "job");
    shop::assert_in_sync(host);
    host.ok(&["down"]);
    fs::remove_dir_all(host.data_dir().join("logs")).unwrap();
    output
}

fn build(host: &Sandbox) -> Outcome {
    let outcome = host.stack(&["build"]);
    assert_eq!(outcome.code, 0, "{}\n{}", outcome.stdout, outcome.stderr);
    outcome
}

/// The steps that a build carried out, by their numbers; the others were kept.
fn made(outcome: &Outcome) -> Vec<String> {
    let steps = outcome.stderr.lines().filter(|line| line.contains("| [") && !line.ends_with("(kept)"));
    steps.map(|line| line.split(['[', '/']).nth(1).unwrap().to_owned()).collect()
}

/// The manifest's digest of the image.
fn digest(host: &Sandbox) -> String {
    let text = host.ok(&["image", "inspect", "localhost/shop/app"]);
    let image: serde_json::Value = serde_json::from_str(&text).unwrap();
    image["image"]["manifest"].as_str().unwrap().to_owned()
}

/// Nothing of a build is left but what the store keeps.
fn assert_tidy(host: &Sandbox) {
    let tmp = host.data_dir().join("tmp");
    let left: Vec<_> = fs::read_dir(&tmp).into_iter().flatten().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_dockerfile_of_two_stages_becomes_an_image() {
    let host = host();
    host.write("ctx/src/a", "source\n");
    host.write("ctx/src/noise.log", "");
    host.write("ctx/.dockerignore", "**/*.log\n");
    let output = said(
        &host,
        "FROM base AS compile\nARG V=1\nENV LEVEL=low\nWORKDIR /work\nCOPY src .\nRUN echo v$V $LEVEL $(ls) > out\n\
         FROM base\nCOPY --from=compile --chown=app /work/out /srv/app/\nCOPY <<END /etc/conf\nhome of ${X:-y}\nEND\n\
         USER app\nWORKDIR /srv/app\nENV KIND=built\nRUN <<END\nid -u > mine\npwd >> mine\necho $HOME >> mine\nEND\n\
         CMD cat out mine /etc/conf; stat -c '%n %u:%g %a' out . /etc/conf; echo $KIND; ls /work; true",
    );
    let expected = [
        "v1 low a\n1234\n/srv/app\n/srv/app\nhome of y\n",
        "out 1234:1235 644\n. 1234:1235 755\n/etc/conf 0:0 644\nbuilt",
        "/work: No such file",
    ];
    assert_says(&output, &expected);
    assert!(!output.contains("noise"), "{output}");
    assert_tidy(&host);
}

#[test]
fn keys_of_the_stack_file_become_an_image() {
    let host = host();
    host.write("site/index", "welcome\n");
    host.write(
        "stack.toml",
        "name = \"shop\"\n[image.base]\nfrom = \"dir:base\"\n\
         [image.app.build]\nfrom = \"base\"\nenv = { LEVEL = \"low\" }\nworkdir = \"/srv\"\nnetwork = \"none\"\n\
         copy = [{ src = [\"site\"], to = \"/srv/www\", owner = \"app\", mode = \"0750\" }, \
         { src = [\"/out\"], to = \"/srv/\", stage = \"compile\" }]\n\
         run = [\"echo $$LEVEL $(pwd) $(id -u) > made\", \"ip -o link | cat > links\"]\nuser = \"app\"\n\
         command = [\"/bin/sh\", \"-c\", \"cat out made links; id -u; stat -c '%n %U %a' www/index www\"]\n\
         expose = [\"80\"]\nlabels = { a = \"b\" }\n\
         [image.app.build.stage.compile]\nfrom = \"base\"\nrun = [\"echo compiled > /out\"]\n\
         [container.job]\nimage = \"app\"\n",
    );
    host.ok(&["up"]);
    let output = output_of(&host, "job");
    assert_says(&output, &["compiled\nlow /srv 0\n", ": lo:", "1234\n", "www/index app 750", "www app 750"]);
    assert!(!output.contains("eth"), "{output}");
    shop::assert_in_sync(&host);
    let image: serde_json::Value = serde_json::from_str(&host.ok(&["image", "inspect", "localhost/shop/app"])).unwrap();
    assert_eq!((&image["config"]["Labels"]["a"], &image["config"]["ExposedPorts"][0]), (&"b".into(), &"80/tcp".into()));
}

#[test]
fn what_did_not_change_is_kept_and_what_follows_a_change_is_made() {
    let host = host();
    let source = host.write("ctx/a", "one");
    with_dockerfile(&host, "FROM base\nRUN echo 1 > /1\nCOPY a /a\nRUN cat /a > /b\nLABEL x=y\nCMD cat /b");
    assert_eq!(made(&build(&host)), ["1", "2", "3"]);
    let first = digest(&host);
    assert!(made(&build(&host)).is_empty());
    // Another time is no change.
    fs::File::options().write(true).open(&source).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert!(made(&build(&host)).is_empty());
    assert_eq!(digest(&host), first);
    fs::set_permissions(&source, fs::Permissions::from_mode(0o600)).unwrap();
    assert_says(&host.stack(&["diff"]).stdout, &["image app", "to build: COPY a /a changed"]);
    assert_eq!(made(&build(&host)), ["2", "3"]);
    assert_ne!(digest(&host), first);
    fs::set_permissions(&source, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(made(&build(&host)).is_empty(), "the steps of the first build are kept too");
    assert_eq!(digest(&host), first);
    // A label changes the image and none of its files.
    with_dockerfile(&host, "FROM base\nRUN echo 1 > /1\nCOPY a /a\nRUN cat /a > /b\nLABEL x=z\nCMD cat /b");
    assert!(made(&build(&host)).is_empty());
    assert_ne!(digest(&host), first);
    assert_eq!(made(&host.stack(&["build", "--no-cache"])), ["1", "2", "3"]);
    assert_tidy(&host);
}

#[test]
fn a_base_that_changed_is_seen() {
    let host = host();
    with_dockerfile(&host, "FROM base\nRUN echo 1 > /1\nCMD cat /1");
    build(&host);
    host.write("base/etc/new", "");
    assert_eq!(made(&build(&host)), ["1"]);
}

#[test]
fn two_stores_come_to_the_same_digest() {
    let text = "FROM base\nRUN mkdir -p /d/e && echo x > /d/e/f && ln -s f /d/e/l && ln /d/e/f /d/e/h\nRUN rm -r /real\nCMD true";
    let digests: Vec<String> = (0..2)
        .map(|_| {
            let host = host();
            with_dockerfile(&host, text);
            build(&host);
            digest(&host)
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
}

/// The tree of a folder: names, kinds, modes, owners, targets, sizes.
fn listing(folder: &Path) -> String {
    let output = Command::new("find")
        .arg(folder)
        .args(["-printf", "%P %y %m %U:%G %l\n"])
        .output()
        .expect("find (findutils) is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[test]
fn other_tools_read_the_same_tree() {
    let host = host();
    let text = "FROM base\nRUN mkdir -p /d/e /gone && echo x > /d/e/f && ln -s f /d/e/l && ln /d/e/f /d/e/h && chmod 4755 /d/e/f\n\
                RUN rm -r /gone /real && mkdir /real && touch /real/new\nRUN rm /d/e/l\nENV A=b\nCMD true";
    with_dockerfile(&host, text);
    build(&host);
    host.ok(&["image", "export", "localhost/shop/app", "image.tar"]);
    host.sh("skopeo --insecure-policy copy oci-archive:image.tar oci:layout:v1");
    host.sh("umoci unpack --image layout:v1 bundle");
    let found = listing(&host.path().join("bundle/rootfs"));
    assert_says(&found, &["d/e/f f 4755 0:0", "d/e/h f 4755 0:0", "real/new f 644", "bin/busybox f"]);
    for gone in ["gone ", "d/e/l ", ".wh.", "proc", "etc/resolv.conf", "etc/hosts"] {
        assert!(!found.contains(gone), "`{gone}` in\n{found}");
    }
    let config = host.sh("skopeo --insecure-policy inspect --config oci:layout:v1");
    assert_says(&config, &["\"A=b\"", "RUN rm /d/e/l", "1980-01-01"]);
}

#[test]
fn nothing_of_the_host_comes_in_by_links() {
    let host = host();
    let secret = host.write("secret", "of the host\n");
    fs::create_dir(host.path().join("ctx/tree")).unwrap();
    symlink("/etc/shadow", host.path().join("ctx/tree/shadow")).unwrap();
    symlink(&secret, host.path().join("ctx/direct")).unwrap();
    symlink(host.path(), host.path().join("ctx/up")).unwrap();
    // A link of the image leads into the image, also where its target is a path of the host.
    let text = "FROM base\nRUN ln -s /var/tmp /into && ln -s ../../../../etc /climb\nCOPY tree /tree\nCOPY direct /direct\n\
                COPY Dockerfile /into/x/f\nCOPY Dockerfile /climb/g\nCOPY Dockerfile /linked/h\n\
                CMD ls -l /tree/shadow /direct /var/tmp/x/f /etc/g /real/h; cat /direct /tree/shadow; true";
    let output = said(&host, text);
    assert_says(&output, &["/tree/shadow -> /etc/shadow", "/direct -> ", "/var/tmp/x/f", "/etc/g", "/real/h"]);
    assert_says(&output, &["cat: can't open '/direct'", "cat: can't open '/tree/shadow'"]);
    assert!(!output.contains("of the host"), "{output}");
    assert!(!Path::new("/var/tmp/x/f").exists() && !Path::new("/etc/g").exists());
    with_dockerfile(&host, "FROM base\nCOPY up/secret /s");
    let outcome = host.stack(&["build"]);
    assert_ne!(outcome.code, 0);
    assert_says(&outcome.stderr, &["ctx/Dockerfile:2", "up/secret"]);
}

#[test]
fn archives_are_unpacked_by_add_alone() {
    let host = host();
    host.write("in/d/f", "packed\n");
    host.sh("tar -C in --owner=1234 --group=1235 -czf ctx/a.tgz d && echo plain | gzip > ctx/p.gz && echo x | xz > ctx/x.tar.xz");
    let output = said(
        &host,
        "FROM base\nADD a.tgz /out/\nCOPY a.tgz /\nADD p.gz /\nCMD cat /out/d/f; stat -c '%n %u' /out/d/f; ls /a.tgz /p.gz",
    );
    assert_says(&output, &["packed", "/out/d/f 1234", "/a.tgz", "/p.gz"]);
    with_dockerfile(&host, "FROM base\nADD x.tar.xz /");
    let outcome = host.stack(&["build"]);
    assert_says(&outcome.stderr, &["ctx/Dockerfile:2", "xz is not supported"]);
    assert_tidy(&host);
}

#[test]
fn a_step_that_fails_says_where_and_leaves_the_running_container() {
    let host = host();
    with_dockerfile(&host, "FROM base\nCMD exec sleep 1000");
    host.ok(&["up"]);
    let before = shop::pids(&host);
    with_dockerfile(&host, "FROM base\n\nRUN echo now; \\\n    echo it breaks; exit 7\nCMD exec sleep 1000");
    let outcome = host.stack(&["up"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert_says(&outcome.stderr, &["ctx/Dockerfile:3", "status 7", "it breaks"]);
    assert_eq!(shop::pids(&host), before);
    assert_tidy(&host);
    with_dockerfile(&host, "FROM base\nRUN true\nCMD exec sleep 1001");
    host.ok(&["up"]);
    shop::assert_in_sync(&host);
    assert_ne!(shop::pids(&host), before);
}

#[test]
fn a_build_that_was_killed_leaves_nothing_that_runs_and_goes_on_in_the_next() {
    let host = host();
    with_dockerfile(&host, "FROM base\nRUN echo 1 > /1\nRUN echo waiting; sleep 4242\nCMD cat /1");
    let mut child = host.command(&["up"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("| waiting")));
    // nsenter executed `stack`: the child is `up` itself.
    child.kill().unwrap();
    child.wait().unwrap();
    let sleeps = || {
        let lines = |pid: PathBuf| fs::read(pid.join("cmdline")).unwrap_or_default();
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter(|entry| lines(entry.path()).ends_with(b"sleep\x004242\x00")).count()
    };
    sandbox::until("the step dies with its build", || sleeps() == 0);
    with_dockerfile(&host, "FROM base\nRUN echo 1 > /1\nRUN echo quick\nCMD cat /1");
    let outcome = host.stack(&["up"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(made(&outcome), ["2"], "the first step was kept");
    assert_eq!(output_of(&host, "job"), "1");
    assert_tidy(&host);
}

#[test]
fn up_build_builds_anew_and_makes_the_container_again() {
    let host = host();
    with_dockerfile(&host, "FROM base\nRUN echo 1 > /1\nCMD exec sleep 1000");
    host.ok(&["up"]);
    let before = shop::pids(&host);
    let outcome = host.stack(&["up", "--build"]);
    assert_eq!((outcome.code, made(&outcome)), (0, vec!["1".to_owned()]), "{outcome:?}");
    shop::assert_touched(&host, &before, &["job"]);
    shop::assert_in_sync(&host);
}

#[test]
fn one_goes_back_to_an_image_that_was_built_and_nothing_is_built() {
    let host = host();
    with_dockerfile(&host, "FROM base\nCOPY text /text\nCMD exec sleep 1000");
    let text = || host.ok(&["exec", "job", "cat", "/text"]);
    for content in ["first", "second"] {
        host.write("ctx/text", content);
        host.ok(&["up"]);
        assert_eq!(text(), content);
    }
    host.ok(&["image", "prune", "--all"]);
    let outcome = host.stack(&["rollback"]);
    assert_eq!((outcome.code, made(&outcome)), (0, vec![]), "{outcome:?}");
    assert_eq!(text(), "first");
    host.ok(&["up"]);
    assert_eq!(text(), "second");
}

#[test]
fn an_image_is_built_on_one_that_is_built() {
    let host = host();
    host.write("ctx/Dockerfile", "FROM base\nRUN echo inner > /inner\nENV LEVEL=inner");
    host.write(
        "stack.toml",
        "name = \"shop\"\n[image.base]\nfrom = \"dir:base\"\n[image.inner.build]\ndockerfile = \"ctx/Dockerfile\"\n\
         [image.app.build]\nfrom = \"inner\"\nrun = [\"cat /inner > /outer\"]\ncommand = [\"/bin/sh\", \"-c\", \
         \"cat /outer; echo $$LEVEL\"]\n[container.job]\nimage = \"app\"\n",
    );
    host.ok(&["up"]);
    assert_eq!(output_of(&host, "job"), "inner\ninner");
    shop::assert_in_sync(&host);
    host.write("ctx/Dockerfile", "FROM base\nRUN echo changed > /inner\nENV LEVEL=inner");
    host.ok(&["up"]);
    shop::assert_in_sync(&host);
    sandbox::until("the new one speaks", || host.ok(&["logs", "job"]).contains("changed"));
}
