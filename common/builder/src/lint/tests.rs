use super::*;
use crate::{config::Config, dockerfile::parse, plan};

/// The findings of the checks, as `line rule: message`.
fn found(text: &str, ignore: &str) -> Vec<String> {
    let file = parse(text.as_bytes()).unwrap();
    let global = Global::new(Default::default(), None, &file.arguments, '\\', "default").unwrap();
    let aliases = plan::Aliases::default();
    let plan = plan::plan(&file, [file.stages.len() - 1], &global, &aliases, &|_, _| Vec::new()).unwrap();
    let image = |name: &str, _: Option<&Platform>| {
        let config = Config { env: vec!["PATH=/bin".to_owned(), "KNOWN=1".to_owned()], ..Config::default() };
        let (os, architecture) =
            ("linux".to_owned(), if name == "arm" { "arm64" } else { "amd64" }.to_owned());
        (name != "unknown").then(|| Image { config, os, architecture, ..Image::default() })
    };
    let ignore = Ignore::parse(ignore.as_bytes()).unwrap();
    let around = Surroundings { plan: &plan, global: &global, image: &image, ignore: &ignore };
    let checks = Checks::parse(file.check.as_deref().unwrap_or_default()).unwrap();
    lint(&file, &around, &checks).iter().map(|finding| format!("{} {finding}", finding.line)).collect()
}

/// Dockerfiles, and what the checks find in each.
const CASES: &[(&str, &[&str])] = &[
    ("FROM a AS b\nCMD [\"x\"]\n", &[]),
    ("FROM a AS Build\n", &["1 StageNameCasing: Stage name 'Build' should be lowercase"]),
    ("FROM a as b\n", &["1 FromAsCasing: 'as' and 'FROM' keywords' casing do not match"]),
    (
        "frOM a as b\nRUN x\n",
        &[
            "1 ConsistentInstructionCasing: Command 'frOM' should match the case of the command majority (uppercase)",
        ],
    ),
    ("# check=experimental=all\n# what follows\n#\nARG A=1\nFROM a\n", &[]),
    ("FROM a\nENV X=1 \\\n\n  Y=2\n", &["4 NoEmptyContinuation: Empty continuation line"]),
    (
        "FROM a\nrun x\nRUN y\n",
        &[
            "2 ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase)",
        ],
    ),
    (
        "FROM a AS b\nFROM a AS b\n",
        &["2 DuplicateStageName: Duplicate stage name \"b\", stage names should be unique"],
    ),
    (
        "FROM a AS context\n",
        &["1 ReservedStageName: Stage name should not use the same name as reserved stage \"context\""],
    ),
    (
        "FROM a\nCMD x\n",
        &[
            "2 JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
        ],
    ),
    ("FROM a\nSHELL [\"/bin/x\"]\nCMD x\nENTRYPOINT y\n", &[]),
    (
        "FROM a\nMAINTAINER me\n",
        &["2 MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label"],
    ),
    (
        "ARG VERSION=1\nFROM a:$VERSIO\n",
        &[
            "2 InvalidDefaultArgInFrom: Default value for ARG a:$VERSIO results in empty or invalid base image name",
            "2 UndefinedArgInFrom: FROM argument 'VERSIO' is not declared (did you mean VERSION?)",
        ],
    ),
    (
        "FROM a\nWORKDIR x\nWORKDIR y\n",
        &[
            "2 WorkdirRelativePath: Relative workdir \"x\" can have unexpected results if the base image changes",
        ],
    ),
    ("FROM a\nWORKDIR \"/x\"\nFROM unknown\nWORKDIR $ANY/x\n", &[]),
    ("FROM a\nENV H=/x\nENV S=$H/y\nARG T=${S}/z\nWORKDIR $T\n", &[]),
    (
        "FROM a\nARG D\nWORKDIR $D\nEXPOSE $NONE\n",
        &[
            "3 WorkdirRelativePath: Relative workdir \"\" can have unexpected results if the base image changes",
        ],
    ),
    (
        "from a\ncmd x\nenv a b\n",
        &[
            "2 JSONArgsRecommended: JSON arguments recommended for cmd to prevent unintended behavior related to OS signals",
            "3 LegacyKeyValueFormat: \"env key=value\" should be used instead of legacy \"env key value\" format",
        ],
    ),
    (
        "FROM a\nCOPY $KNOW /\nENV A=$PATH B=${NONE:-1}\nARG N\nLABEL a=$N\n",
        &[
            "2 UndefinedVar: Usage of undefined variable '$KNOW' (did you mean $KNOWN?)",
            "3 UndefinedVar: Usage of undefined variable '$NONE'",
        ],
    ),
    ("FROM unknown\nCOPY $ANY /\n", &[]),
    (
        "FROM a\nCMD [\"x\"]\nCMD [\"y\"]\n",
        &[
            "2 MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used",
        ],
    ),
    (
        "FROM a\nENV x y\nLABEL a b\n",
        &[
            "2 LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            "3 LegacyKeyValueFormat: \"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format",
        ],
    ),
    (
        "FROM --platform=$TARGETPLATFORM a\n",
        &[
            "1 RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
        ],
    ),
    (
        "FROM --platform=linux/amd64 a\nFROM --platform=linux/amd64 a AS for-amd64\n",
        &[
            "1 FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\"",
        ],
    ),
    (
        "FROM --platform=$BUILDPLATFORM arm\n",
        &[
            "1 InvalidBaseImagePlatform: Base image arm was pulled with platform \"linux/arm64\", expected \"linux/amd64\" for current build",
        ],
    ),
    (
        "FROM a\nARG DB_PASSWORD\nENV API_KEY=1 PUBLIC_KEY=1 MONKEY=1 TOKEN_FILE=1\n",
        &[
            "2 SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"DB_PASSWORD\")",
            "3 SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV \"API_KEY\")",
        ],
    ),
    (
        "FROM a\nEXPOSE 80/TCP 127.0.0.1:81:81\n",
        &[
            "2 ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:81:81'",
            "2 ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
        ],
    ),
    (
        "# check=experimental=all\n# what it is\nARG A=1\n# A: wrong\nFROM a AS b\n",
        &[
            "3 InvalidDefinitionDescription: Comment for ARG should follow the format: `# A <description>`",
            "5 InvalidDefinitionDescription: Comment for FROM should follow the format: `# b <description>`",
        ],
    ),
];

#[test]
fn each_check() {
    for (text, expected) in CASES {
        let mut found = found(text, "");
        found.sort();
        assert_eq!(found, *expected, "{text}");
    }
}

#[test]
fn files_that_are_ignored() {
    let found = |text: &str, ignore: &str| found(&format!("FROM a\n{text}\n"), ignore);
    let message = "2 CopyIgnoredFile: Attempting to Copy file \"x/y\" that is excluded by .dockerignore";
    assert_eq!(found("COPY ./x/y /", "x"), [message]);
    assert_eq!(found("COPY . /", "x"), Vec::<String>::new());
    assert_eq!(
        found("ADD . /", "*"),
        ["2 CopyIgnoredFile: Attempting to Add file \".\" that is excluded by .dockerignore"]
    );
    assert_eq!(found("COPY x /", "*\n!x"), Vec::<String>::new());
}

#[test]
fn what_is_left_out() {
    assert_eq!(found("# check=skip=all\nFROM a as B\nCMD x\n", ""), Vec::<String>::new());
    assert_eq!(found("# check=skip=JSONArgsRecommended\nFROM a\nCMD x\n", ""), Vec::<String>::new());
    assert_eq!(found("FROM a\n# check=skip=JSONArgsRecommended\nCMD x\n", ""), Vec::<String>::new());
    assert_eq!(found("FROM a\n# check=skip=JSONArgsRecommended\n\nCMD x\n", "").len(), 1);
}
