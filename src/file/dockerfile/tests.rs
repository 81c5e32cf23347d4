//! What Dockerfiles come to, and what is said of faulty ones.

use super::*;
use crate::model::build::{CommandForm, Copy};

fn parse(text: &str) -> Build {
    parse_dockerfile("Dockerfile", text, Wish::default()).unwrap_or_else(|faults| panic!("{faults}"))
}

fn steps(text: &str) -> Vec<Instruction> {
    parse(&format!("FROM scratch\n{text}")).stages.remove(0).steps.into_iter().map(|step| step.what).collect()
}

fn shell(text: &str) -> CommandForm {
    CommandForm::Shell(text.into())
}

fn exec(words: &[&str]) -> CommandForm {
    CommandForm::Exec(words.iter().map(|word| word.to_string()).collect())
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.into(), value.into())
}

#[test]
fn commands_have_two_forms() {
    assert_eq!(steps("RUN a && \\\n b"), [Instruction::Run(shell("a &&  b"))]);
    assert_eq!(steps("RUN [\"a\", \"b c\"]"), [Instruction::Run(exec(&["a", "b c"]))]);
    assert_eq!(steps("CMD [ -f x ] && y"), [Instruction::Cmd(shell("[ -f x ] && y"))]);
    assert_eq!(steps("ENTRYPOINT [\"a\"]"), [Instruction::Entrypoint(exec(&["a"]))]);
    assert_eq!(steps("RUN <<EOF\na\nb\nEOF"), [Instruction::Run(shell("a\nb\n"))]);
    assert_eq!(steps("RUN cat <<EOF >x\na\nEOF"), [Instruction::Run(shell("cat <<EOF >x\na\nEOF\n"))]);
}

#[test]
fn pairs_are_read_in_both_forms() {
    assert_eq!(steps("ENV A=1 B=\"x y\""), [Instruction::Env(vec![pair("A", "1"), pair("B", "\"x y\"")])]);
    assert_eq!(steps("ENV A some  text"), [Instruction::Env(vec![pair("A", "some  text")])]);
    assert_eq!(steps("LABEL a.b=c"), [Instruction::Label(vec![pair("a.b", "c")])]);
    assert_eq!(steps("ARG A B=2"), [Instruction::Arg(vec![("A".into(), None), ("B".into(), Some("2".into()))])]);
}

#[test]
fn files_are_copied_with_flags() {
    let [Instruction::Copy(copy)] = &steps("COPY --chown=a:b --chmod=755 x y /z/")[..] else { panic!() };
    let Copy { sources, to, owner, mode, .. } = copy;
    assert_eq!(
        (sources.join(" "), to.as_str(), owner.as_deref(), *mode),
        ("x y".into(), "/z/", Some("a:b"), Some(0o755))
    );
    let [Instruction::Copy(copy)] = &steps("COPY <<one <<\"two\" /z/\n1\none\n2\ntwo")[..] else { panic!() };
    let inline: Vec<_> = copy.inline.iter().map(|doc| (doc.name.as_str(), doc.content.as_str(), doc.expands)).collect();
    assert_eq!(inline, [("one", "1\n", true), ("two", "2\n", false)]);
    assert!(copy.sources.is_empty());
    let [Instruction::Copy(copy)] = &steps("ADD [\"a b\", \"/z\"]")[..] else { panic!() };
    assert!(copy.unpack && copy.sources == ["a b"]);
}

#[test]
fn stages_are_found_by_name_and_number() {
    let build = parse("ARG V=1\nFROM img:$V AS One\nFROM one AS two\nCOPY --from=0 a b\nCOPY --from=one a b\nFROM two");
    assert!(matches!(&build.stages[0].base, Base::Image(image) if image.written == "img:1"));
    assert_eq!((&build.stages[1].base, &build.stages[2].base), (&Base::Stage(0), &Base::Stage(1)));
    for step in &build.stages[1].steps {
        assert!(matches!(&step.what, Instruction::Copy(copy) if copy.from == CopyFrom::Stage(0)));
    }
    assert_eq!(build.target, 2);
    let wish = Wish { target: Some("two".into()), ..Wish::default() };
    assert_eq!(parse_dockerfile("f", "FROM a AS two\nFROM b", wish).unwrap().target, 0);
}

#[test]
fn given_arguments_outrank_defaults_in_from() {
    let wish = Wish { args: vec![pair("V", "9")], ..Wish::default() };
    let build = parse_dockerfile("f", "ARG V=1\nFROM img:${V:-x}", wish).unwrap();
    assert!(matches!(&build.stages[0].base, Base::Image(image) if image.written == "img:9"));
}

#[test]
fn health_checks_have_times() {
    let [Instruction::Healthcheck(check)] = &steps("HEALTHCHECK --interval=1m30s --retries=2 CMD x y")[..] else {
        panic!()
    };
    assert_eq!((check.interval, check.retries, check.command.clone()), (90_000_000_000, 2, Some(shell("x y"))));
    let [Instruction::Healthcheck(check)] = &steps("HEALTHCHECK NONE")[..] else { panic!() };
    assert_eq!(check.command, None);
}

/// Of a faulty Dockerfile: its place and words of what is said.
#[track_caller]
fn refused(text: &str, line: u32, words: &[&str]) {
    let faults = parse_dockerfile("Dockerfile", text, Wish::default()).unwrap_err();
    let said = faults.to_string();
    assert_eq!(
        faults.iter().next().and_then(|fault| fault.place.as_ref()).map(|place| place.line),
        Some(line),
        "{said}"
    );
    for word in words.iter().chain([&format!("Dockerfile:{line}:").as_str()]) {
        assert!(said.contains(word), "`{word}` is not in:\n{said}");
    }
}

#[test]
fn faults_are_told_with_their_line_and_cure() {
    refused("RUN x", 1, &["before the first `FROM`"]);
    refused("", 1, &["no `FROM`"]);
    refused("FROM scratch\nONBUILD RUN x", 2, &["`ONBUILD` is not supported", "help"]);
    refused("FROM scratch\nMAINTAINER me", 2, &["LABEL"]);
    refused("FROM scratch\nRUNN x", 2, &["unknown instruction `RUNN`", "did you mean `RUN`?"]);
    refused("FROM scratch\nADD https://x/y /z", 2, &["URL `https://x/y`", "curl"]);
    refused("FROM scratch\nCOPY ../x /y", 2, &["`../x` leads out"]);
    refused("FROM scratch\nCOPY x", 2, &["COPY SOURCE… TARGET"]);
    refused("FROM scratch\nCOPY a b /c", 2, &["`/c/`"]);
    refused("FROM scratch\nCOPY --from=7 a b", 2, &["no earlier stage 7"]);
    refused("FROM scratch\nCOPY --chmod=u+x a b", 2, &["octal"]);
    refused("FROM scratch\n\nRUN --mount=type=cache,target=/x y", 3, &["`RUN --mount`"]);
    refused("FROM scratch\nRUN <<EOF\nx", 2, &["`EOF` is not closed"]);
    refused("FROM scratch\nSHELL sh", 2, &["SHELL ["]);
    refused("FROM scratch\nENV", 2, &["says nothing"]);
    refused("FROM scratch\nHEALTHCHECK --interval=x CMD y", 2, &["no duration"]);
    refused("FROM a AS x\nFROM b AS x", 2, &["two stages"]);
    refused("FROM Not_An_Image!", 1, &["names no image"]);
    refused("FROM a b", 1, &["FROM IMAGE [AS NAME]"]);
    refused("FROM --platform=windows/amd64 a", 1, &["windows/amd64"]);
    refused("# escape=x\nFROM a", 1, &["escape character"]);
}
