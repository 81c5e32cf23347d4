//! What builds come to: configurations, and which changes change which keys.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::model::ImageSource;
use crate::model::Pull;
use crate::model::build::{BuildStep, Heredoc};

struct Images;

impl Bases for Images {
    fn facts(&self, image: &BaseImage) -> Result<BaseFacts, String> {
        let config = ImageConfig {
            env: vec!["PATH=/bin".into(), "LEVEL=low".into()],
            cmd: vec!["base".into()],
            ..ImageConfig::default()
        };
        Ok(BaseFacts { id: format!("id of {}", image.written), config, history: vec![] })
    }
}

fn image(written: &str) -> BaseImage {
    BaseImage { written: written.into(), source: ImageSource::Host, pull: Pull::Missing }
}

fn build_of(context: &Path, steps: Vec<Instruction>) -> Build {
    let step = |(at, what): (usize, Instruction)| BuildStep { line: at as u32 + 2, text: format!("{what:?}"), what };
    Build {
        file: "Dockerfile".into(),
        context: context.into(),
        ignored: vec!["*.log".into()],
        globals: vec![("FROM_TOP".into(), "top".into())],
        args: vec![("GIVEN".into(), "given".into())],
        stages: vec![Stage {
            name: None,
            base: Base::Image(image("base")),
            steps: steps.into_iter().enumerate().map(step).collect(),
            line: 1,
        }],
        target: 0,
        network: BuildNetwork::Host,
        escape: Some('\\'),
    }
}

fn planned(build: &Build) -> BuildPlan {
    plan(build, &Images, (1000, &[("TARGETARCH", "amd64".into())])).unwrap_or_else(|error| panic!("{error}"))
}

fn config_of(steps: Vec<Instruction>) -> ImageConfig {
    planned(&build_of(Path::new("/"), steps)).stages[0].clone().unwrap().config
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn shell(text: &str) -> CommandForm {
    CommandForm::Shell(text.into())
}

#[test]
fn variables_see_what_stood_before_their_instruction() {
    let config = config_of(vec![
        Instruction::Env(pairs(&[("A", "1"), ("B", "$LEVEL-$A")])),
        Instruction::Env(pairs(&[("C", "${A}2"), ("LEVEL", "high")])),
        Instruction::Label(pairs(&[("l", "$C")])),
    ]);
    assert_eq!(config.env, ["PATH=/bin", "LEVEL=high", "A=1", "B=low-", "C=12"]);
    assert_eq!(config.labels["l"], "12");
}

#[test]
fn arguments_reach_commands_and_not_the_image() {
    let arg = |name: &str, default: Option<&str>| Instruction::Arg(vec![(name.into(), default.map(str::to_owned))]);
    let steps = vec![
        arg("GIVEN", Some("default")),
        arg("OWN", Some("own")),
        arg("FROM_TOP", None),
        arg("TARGETARCH", None),
        arg("NOWHERE", None),
        Instruction::Run(shell("x")),
    ];
    let plan = planned(&build_of(Path::new("/"), steps));
    let stage = plan.stages[0].as_ref().unwrap();
    let Doing::Run(run) = &stage.steps[5].doing else { panic!() };
    assert_eq!(run.env, ["PATH=/bin", "LEVEL=low", "FROM_TOP=top", "GIVEN=given", "OWN=own", "TARGETARCH=amd64"]);
    assert_eq!(run.args, ["/bin/sh", "-c", "x"]);
    assert_eq!(stage.config.env, ["PATH=/bin", "LEVEL=low"]);
}

#[test]
fn folders_and_users_hold_for_what_follows() {
    let steps = vec![
        Instruction::Workdir("/srv".into()),
        Instruction::Workdir("app/".into()),
        Instruction::User("app".into()),
        Instruction::Shell(vec!["/bin/bash".into(), "-ec".into()]),
        Instruction::Run(shell("x")),
    ];
    let plan = planned(&build_of(Path::new("/"), steps));
    let Doing::Run(run) = &plan.stages[0].as_ref().unwrap().steps[4].doing else { panic!() };
    assert_eq!(
        (run.cwd.as_str(), run.user.as_str(), &run.args[..2]),
        ("/srv/app", "app", &["/bin/bash".to_owned(), "-ec".into()][..])
    );
}

#[test]
fn an_entry_point_clears_the_command_of_the_base_alone() {
    let entrypoint = || Instruction::Entrypoint(CommandForm::Exec(vec!["e".into()]));
    assert!(config_of(vec![entrypoint()]).cmd.is_empty());
    let own = Instruction::Cmd(CommandForm::Exec(vec!["c".into()]));
    assert_eq!(config_of(vec![own, entrypoint()]).cmd, ["c"]);
    assert_eq!(config_of(vec![]).cmd, ["base"]);
}

#[test]
fn paths_are_made_absolute() {
    for (folder, path, expected) in [
        ("/a", "b", "/a/b"),
        ("/a", "/b/", "/b/"),
        ("", ".", "/"),
        ("/a", ".", "/a/"),
        ("/a", "../../x", "/x"),
        ("/a", "./b/./c/", "/a/b/c/"),
    ] {
        assert_eq!(absolute(folder, path), expected, "{folder} {path}");
    }
}

#[test]
fn ports_are_checked() {
    let config = config_of(vec![Instruction::Expose(vec!["80".into(), "90-91/udp".into()])]);
    assert_eq!(config.exposed_ports, ["80/tcp", "90/udp", "91/udp"]);
    let build = build_of(Path::new("/"), vec![Instruction::Expose(vec!["http".into()])]);
    let error = plan(&build, &Images, (0, &[])).unwrap_err().to_string();
    assert!(error.contains("Dockerfile:2") && error.contains("`http` is no port"), "{error}");
}

fn copy(source: &str) -> Instruction {
    Instruction::Copy(Copy {
        from: CopyFrom::Context,
        sources: vec![source.into()],
        inline: vec![],
        to: "/x/".into(),
        owner: None,
        mode: None,
        unpack: false,
    })
}

/// A context, and what the key of its copy is after each change.
struct Context(tempfile::TempDir);

impl Context {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("src")).unwrap();
        fs::write(folder.path().join("src/a"), "a").unwrap();
        fs::set_permissions(folder.path().join("src/a"), fs::Permissions::from_mode(0o644)).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn key(&self) -> LayerDigest {
        planned(&build_of(self.0.path(), vec![copy("src"), Instruction::Run(shell("make"))])).key
    }
}

#[test]
fn a_step_is_known_by_content_and_not_by_times() {
    let context = Context::new();
    let before = context.key();
    let touch = || fs::File::options().write(true).open(context.path("src/a")).unwrap();
    touch().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(context.key(), before, "another time");
    fs::write(context.path("src/b.log"), "").unwrap();
    fs::write(context.path("other"), "").unwrap();
    assert_eq!(
        context.key(),
        planned(&build_of(context.0.path(), vec![copy("src"), Instruction::Run(shell("make"))])).key
    );
    fs::remove_file(context.path("src/b.log")).unwrap();
    assert_eq!(context.key(), before, "what is not copied");
    fs::set_permissions(context.path("src/a"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_ne!(context.key(), before, "another mode");
    fs::set_permissions(context.path("src/a"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(context.key(), before);
    fs::write(context.path("src/a"), "b").unwrap();
    assert_ne!(context.key(), before, "another content");
    fs::write(context.path("src/a"), "a").unwrap();
    std::os::unix::fs::symlink("/etc/shadow", context.path("src/link")).unwrap();
    assert_ne!(context.key(), before, "one more entry");
}

#[test]
fn what_is_ignored_changes_nothing() {
    let context = Context::new();
    let key = || planned(&build_of(context.0.path(), vec![copy(".")])).key;
    let before = key();
    fs::write(context.path("noise.log"), "x").unwrap();
    assert_eq!(key(), before);
    fs::write(context.path("sound"), "x").unwrap();
    assert_ne!(key(), before);
}

#[test]
fn what_is_not_there_is_told_with_its_line() {
    let context = Context::new();
    for (source, why) in
        [("gone", "`gone` does not exist"), ("*.c", "`*.c` does not exist"), ("x.log", ".dockerignore")]
    {
        fs::write(context.path("x.log"), "").unwrap();
        let error = plan(&build_of(context.0.path(), vec![copy(source)]), &Images, (0, &[])).unwrap_err();
        let said = super::super::step::chain(&error);
        assert!(said.contains("Dockerfile:2") && said.contains(why), "{said}");
    }
}

#[test]
fn no_link_leads_out_of_the_context() {
    let context = Context::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "s").unwrap();
    std::os::unix::fs::symlink(outside.path(), context.path("out")).unwrap();
    let error = plan(&build_of(context.0.path(), vec![copy("out/secret")]), &Images, (0, &[])).unwrap_err();
    assert!(super::super::step::chain(&error).contains("`out/secret`"));
    // Named itself, it is copied as a link.
    assert!(plan(&build_of(context.0.path(), vec![copy("out")]), &Images, (0, &[])).is_ok());
}

#[test]
fn each_part_of_a_step_is_in_its_key() {
    let key = |what: Instruction| planned(&build_of(Path::new("/"), vec![what])).stages[0].clone().unwrap().key;
    let inline = |content: &str, to: &str, owner: Option<&str>, mode| {
        let inline = vec![Heredoc { name: "f".into(), content: content.into(), expands: false }];
        let (to, owner) = (to.to_owned(), owner.map(str::to_owned));
        Instruction::Copy(Copy { from: CopyFrom::Context, sources: vec![], inline, to, owner, mode, unpack: false })
    };
    let keys = [
        key(Instruction::Run(shell("a"))),
        key(Instruction::Run(shell("b"))),
        key(Instruction::Run(CommandForm::Exec(vec!["a".into()]))),
        key(Instruction::Workdir("/a".into())),
        key(inline("1", "/a", None, None)),
        key(inline("2", "/a", None, None)),
        key(inline("1", "/b", None, None)),
        key(inline("1", "/a", Some("1"), None)),
        key(inline("1", "/a", None, Some(0o600))),
        key(Instruction::User("app".into())),
    ];
    for (at, one) in keys.iter().enumerate() {
        assert!(!keys[..at].contains(one), "{at}");
    }
    // What changes the configuration alone keeps the files.
    assert_eq!(keys[9], key(Instruction::Label(pairs(&[("a", "b")]))));
}
