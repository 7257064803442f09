use proptest::prelude::*;

use super::{
    instruction::{Argument, CommandLine, Healthcheck, Instruction, Pair, RunNetwork},
    mount::{Mount, MountFields, Sharing, Type},
    *,
};

/// Parses an instruction as the only one after `FROM scratch`.
fn instruction(text: &str) -> Result<Instruction, String> {
    let file = parse(format!("FROM scratch\n{text}").as_bytes()).map_err(|error| error.message)?;
    Ok(file.stages[0].statements[0].instruction.clone())
}

fn exec(words: &[&str]) -> CommandLine {
    CommandLine::Exec(words.iter().map(|word| (*word).to_owned()).collect())
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<Pair> {
    pairs
        .iter()
        .map(|(name, value)| Pair { name: (*name).to_owned(), value: (*value).to_owned(), legacy: false })
        .collect()
}

#[test]
fn a_directive_is_no_comment_of_the_first_instruction() {
    let file = parse(b"# syntax=x\n# check=skip=all\n# about it\nFROM a\n").unwrap();
    assert_eq!(
        (file.check.as_deref(), &file.stages[0].comments[..]),
        (Some("skip=all"), &["about it".to_owned()][..])
    );
}

#[test]
fn instructions() {
    let shell = |text: &str| CommandLine::Shell(text.to_owned());
    let argument =
        |name: &str, default: Option<&str>| Argument { name: name.into(), default: default.map(Into::into) };
    for (text, expected) in [
        ("CMD [\"/bin/bash\"]", Instruction::Cmd(exec(&["/bin/bash"]))),
        ("cmd echo  hi", Instruction::Cmd(shell("echo  hi"))),
        ("CMD ['a']", Instruction::Cmd(shell("['a']"))),
        ("CMD []", Instruction::Cmd(exec(&[]))),
        ("ENTRYPOINT [\"a\", \"b\"]", Instruction::Entrypoint(exec(&["a", "b"]))),
        (
            "ENV a b c",
            Instruction::Env(vec![Pair { name: "a".to_owned(), value: "b c".to_owned(), legacy: true }]),
        ),
        ("ENV a=b c=\"d e\" f='g'", Instruction::Env(pairs(&[("a", "b"), ("c", "\"d e\""), ("f", "'g'")]))),
        ("ENV a=b\\ c d=", Instruction::Env(pairs(&[("a", "b\\ c"), ("d", "")]))),
        ("ENV a=b=c", Instruction::Env(pairs(&[("a", "b=c")]))),
        ("LABEL \"a b\"=c", Instruction::Label(pairs(&[("\"a b\"", "c")]))),
        (
            "ARG a b=c d=",
            Instruction::Arg(vec![argument("a", None), argument("b", Some("c")), argument("d", Some(""))]),
        ),
        ("EXPOSE 80/tcp 53", Instruction::Expose(strings(&["53", "80/tcp"]))),
        ("VOLUME /a /b", Instruction::Volume(strings(&["/a", "/b"]))),
        ("VOLUME [\"/a b\"]", Instruction::Volume(strings(&["/a b"]))),
        ("SHELL [\"/bin/bash\", \"-c\"]", Instruction::Shell(strings(&["/bin/bash", "-c"]))),
        ("STOPSIGNAL SIGKILL", Instruction::StopSignal("SIGKILL".into())),
        ("USER a:b", Instruction::User("a:b".into())),
        ("WORKDIR /a b", Instruction::Workdir("/a b".into())),
        ("MAINTAINER A <a@b>", Instruction::Maintainer("A <a@b>".into())),
        ("ONBUILD RUN a", Instruction::Onbuild("RUN a".into())),
        ("ONBUILD RUN <<E\na\nE", Instruction::Onbuild("RUN <<E\na\nE".into())),
        (
            "HEALTHCHECK --interval=5m --timeout=3s --retries=2 CMD curl -f x || exit 1",
            Instruction::Healthcheck(Healthcheck {
                test: strings(&["CMD-SHELL", "curl -f x || exit 1"]),
                interval: 300_000_000_000,
                timeout: 3_000_000_000,
                retries: 2,
                ..Healthcheck::default()
            }),
        ),
        (
            "HEALTHCHECK CMD [\"a\"]",
            Instruction::Healthcheck(Healthcheck { test: strings(&["CMD", "a"]), ..Healthcheck::default() }),
        ),
        (
            "HEALTHCHECK none",
            Instruction::Healthcheck(Healthcheck { test: strings(&["NONE"]), ..Healthcheck::default() }),
        ),
        (
            "HEALTHCHECK --interval=5s --unknown NONE",
            Instruction::Healthcheck(Healthcheck { test: strings(&["NONE"]), ..Healthcheck::default() }),
        ),
    ] {
        assert_eq!(instruction(text).as_ref(), Ok(&expected), "{text}");
    }
}

#[test]
fn copies() {
    let copy = |text: &str| match instruction(text) {
        Ok(Instruction::Copy(copy) | Instruction::Add(copy)) => copy,
        other => panic!("{text}: {other:?}"),
    };
    let plain = copy("COPY a b /c/");
    assert_eq!((plain.sources, plain.destination), (strings(&["a", "b"]), "/c/".to_owned()));
    let json = copy("COPY [\"a b\", \"c d\"]");
    assert_eq!((json.sources, json.destination), (strings(&["a b"]), "c d".to_owned()));
    let flags =
        copy("COPY --from=x --chown=a:b --chmod=755 --link --parents=false --exclude=*.a --exclude=b c d");
    assert_eq!(
        (flags.from.as_deref(), flags.chown.as_deref(), flags.chmod.as_deref()),
        (Some("x"), Some("a:b"), Some("755"))
    );
    assert_eq!((flags.link, flags.parents, flags.exclude), (true, false, strings(&["*.a", "b"])));
    let here = copy("COPY a <<-F /c/\n\tx\n\tF");
    assert_eq!(here.sources, ["a"]);
    assert_eq!((here.documents[0].name.as_str(), here.documents[0].text().as_str()), ("F", "x\n"));
    assert_eq!(copy("ADD --unpack=false a.tar /").unpack, Some(false));
}

#[test]
fn runs() {
    let run = |text: &str| match instruction(text) {
        Ok(Instruction::Run(run)) => run,
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(run("RUN a \\\n # b\n && c").command, CommandLine::Shell("a  && c".into()));
    assert_eq!(run("RUN").command, CommandLine::Shell(String::new()), "the shell runs nothing");
    assert_eq!(run("RUN --network=none a").network, RunNetwork::None);
    let here = run("RUN python3 <<EOF\nprint(1)\nEOF");
    assert_eq!(
        (here.command, &*here.documents[0].content),
        (CommandLine::Shell("python3 <<EOF".into()), "print(1)\n")
    );
    let mount =
        |text: &str| mount::parse(MountFields::of(&run(&format!("RUN --mount={text} a")).mounts[0])).unwrap();
    assert_eq!(
        mount("type=cache,target=/a,id=b,sharing=locked,uid=1,mode=700"),
        Mount {
            kind: Type::Cache,
            target: "/a".into(),
            id: Some("b".into()),
            sharing: Sharing::Locked,
            uid: Some(1),
            mode: Some(0o700),
            ..Mount::default()
        }
    );
    let bind = mount("target=.,from=x,src=/y,rw");
    assert_eq!((bind.from.as_deref(), bind.source.as_deref(), bind.readonly), (Some("x"), Some("/y"), false));
    assert!(mount("type=bind,dst=/a").readonly);
    assert_eq!(mount("from=x,src=/y,rw").target, "", "the working directory");
    let secret = mount("type=secret,id=a,env=B,required,mode=0440");
    assert_eq!(
        secret,
        Mount {
            kind: Type::Secret,
            id: Some("a".into()),
            env: Some("B".into()),
            required: true,
            readonly: true,
            mode: Some(0o440),
            ..Mount::default()
        }
    );
    assert_eq!(mount("type=ssh").kind, Type::Ssh);
    assert_eq!(mount("type=tmpfs,target=/a,size=64m").size, Some(64 << 20));
}

#[test]
fn stages() {
    let file =
        parse(b"ARG V=1\nFROM --platform=linux/amd64 a:$V AS Build\nRUN b\nFROM build as c\n").unwrap();
    assert_eq!(file.arguments.len(), 1);
    let names: Vec<_> =
        file.stages.iter().map(|stage| (stage.base.as_str(), stage.name.as_deref(), stage.line)).collect();
    assert_eq!(names, [("a:$V", Some("build"), 2), ("build", Some("c"), 4)]);
    assert_eq!(file.stages[0].platform.as_deref(), Some("linux/amd64"));
    assert_eq!(file.stages[0].statements[0].line, 3);
}

#[test]
fn errors() {
    for (file, expected) in [
        ("", "1: file with no instructions"),
        ("# only\n\n# comments\n", "1: file with no instructions"),
        ("ARG a", "1: no build stage in current context"),
        ("RUN a", "1: no build stage in current context"),
        ("FROM a b", "1: FROM requires either one or three arguments"),
        ("FROM", "1: FROM requires either one or three arguments"),
        (
            "FROM a AS 1",
            "1: invalid name for build stage: \"1\", name can't start with a number or contain symbols",
        ),
        ("FROM a\n\nFOO bar", "3: unknown instruction: FOO"),
        ("FROM a\nfoo", "2: unknown instruction: foo"),
        ("FROM a\nENV", "2: ENV requires at least one argument"),
        ("FROM a\nENV x", "2: ENV must have two arguments"),
        ("FROM a\nENV =x", "2: ENV names can not be blank"),
        ("FROM a\nENV x=y z", "2: Syntax error - can't find = in \"z\". Must be of the form: name=value"),
        (
            "FROM a\nCOPY x",
            "2: COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("FROM a\nCOPY x <<EOF\nEOF\n", "2: COPY cannot accept a heredoc as a destination"),
        ("FROM a\nCOPY --form=b x y", "2: unknown flag: --form (did you mean --from?)"),
        ("FROM a\nCOPY --from=b --from=c x y", "2: duplicate flag specified: --from"),
        ("FROM a\nCOPY --from x y", "2: missing a value on flag: --from"),
        ("FROM a\nCOPY --link=x y z", "2: expecting boolean value for flag --link, not: x"),
        (
            "FROM a\nCOPY --from=$x y z",
            "2: variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
        ),
        ("FROM a\nADD --from=x y z", "2: unknown flag: --from"),
        (
            "FROM a\nCMD [\"a\", 1]",
            "2: when using JSON array syntax, arrays must be comprised of strings only",
        ),
        ("FROM a\nSHELL a b", "2: SHELL requires the arguments to be in JSON form: SHELL a b"),
        ("FROM a\nSHELL []", "2: SHELL requires at least one argument"),
        ("FROM a\nONBUILD ONBUILD RUN x", "2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("FROM a\nONBUILD FROM x", "2: FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nONBUILD FOO", "2: unknown instruction: FOO"),
        ("FROM a\nHEALTHCHECK FOO", "2: Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
        ("FROM a\nHEALTHCHECK CMD", "2: Missing command after HEALTHCHECK CMD"),
        ("FROM a\nHEALTHCHECK NONE x", "2: HEALTHCHECK NONE takes no arguments"),
        (
            "FROM a\nHEALTHCHECK --interval=1us CMD x",
            "2: Interval \"--interval\" cannot be less than 1ms: 1000ns",
        ),
        ("FROM a\nVOLUME [\"\"]", "2: VOLUME specified can not be an empty string"),
        ("FROM a\nUSER", "2: USER requires exactly one argument"),
        ("FROM a\nRUN --network=x a", "2: unsupported network mode \"x\""),
        ("FROM a\nRUN []", "2: RUN has no command: [] is empty"),
        ("FROM a\nRUN <<EOF\na", "2: unterminated heredoc"),
    ] {
        assert_eq!(parse(file.as_bytes()).unwrap_err().to_string(), expected, "{file:?}");
    }
}

#[test]
fn triggers() {
    assert_eq!(parse_trigger("RUN <<E\na\nE").unwrap().text, "RUN <<E");
    for text in ["", "FROM a", "RUN a\nRUN b"] {
        assert!(parse_trigger(text).is_err(), "{text}");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_no_trouble() {
    assert!(parse(b"# caf\xe9\nFROM a\n").is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn nothing_like_a_dockerfile_makes_it_panic(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "FROM", "a", " ", "\n", "\\\n", "RUN", "COPY", "<<", "-", "EOF", "\"", "'", "[", "]", "--from=", "--mount=",
                "ENV", "=", "$", "{", "}", "#", "escape=`", "`", "ONBUILD", "HEALTHCHECK", "CMD", "--interval=", "5m", "\t",
                "ä", ",", "type=cache", "LABEL", "ARG", "\r\n", "\0",
            ]),
            0..40,
        )
    ) {
        let _ = parse(words.concat().as_bytes());
        let _ = parse(format!("FROM a\n{}", words.concat()).as_bytes());
    }
}

#[test]
fn bytes_that_are_not_text() {
    let wrong = "an instruction has bytes that are not UTF-8";
    for (file, expected) in [
        (&b"FROM a\nCOPY <<'E' /x\n\xff\nE\n"[..], Some((2, wrong))),
        (b"FROM a\nRUN <<E\n\xff\nE\n", Some((2, wrong))),
        (b"FROM a\nRUN echo \xff\n", Some((2, wrong))),
        (b"FROM a\n# \xff\nRUN a \\\n# \xff\n b\n", None),
        (b"FROM a\nWORKDIR /caf\xe9\n", Some((2, wrong))),
        (b"FROM a\nENV A=caf\xe9\n", Some((2, wrong))),
        (b"ARG A=\xe9\nFROM a\n", Some((1, wrong))),
        (b"FROM a\xe9\n", Some((1, wrong))),
        (b"FROM a\nMAINTAINER J\xf6rg\nLABEL by=J\xf6rg\n", None),
        ("FROM a\nRUN echo \u{fffd}\n".as_bytes(), None),
    ] {
        let found = parse(file).err().map(|error| (error.line, error.message));
        assert_eq!(found, expected.map(|(line, text)| (line, text.to_owned())), "{file:?}");
    }
}
