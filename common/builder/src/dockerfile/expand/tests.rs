use super::*;
use proptest::prelude::*;

fn lookup(name: &str) -> Option<String> {
    let value = match name {
        "PWD" => "/home",
        "SHELL" => "bash",
        "NULL" => "",
        "KOREAN" => "한국어",
        "str" => "foobarbaz",
        "path" => "a/b}c*d",
        "space" => "abc  def",
        "lead" => "  ab c",
        _ => return None,
    };
    Some(value.to_owned())
}

/// Words, and what each expands to; None for one that is an error.
const WORDS: &[(&str, Option<&str>)] = &[
    ("hello", Some("hello")),
    ("he'll'o", Some("hello")),
    ("he'llo", None),
    (r"he\'llo", Some("he'llo")),
    (r"abc\tdef", Some("abctdef")),
    (r#""abc\tdef""#, Some(r"abc\tdef")),
    (r#""abc\\tdef""#, Some(r"abc\tdef")),
    (r"'abc\tdef'", Some(r"abc\tdef")),
    (r"hello\", Some("hello")),
    (r"hello\\", Some(r"hello\")),
    (r#""hello\""#, None),
    (r"'hello\'", Some(r"hello\")),
    (r"'\\'", Some(r"\\")),
    ("$.", Some("$.")),
    ("he$1x", Some("hex")),
    ("he$PWD", Some("he/home")),
    (r"he\$PWD", Some("he$PWD")),
    (r"he\\$PWD", Some(r"he\/home")),
    (r#""he\$PWD""#, Some("he$PWD")),
    (r"\${}aaa", Some("${}aaa")),
    ("${}", None),
    ("${{x}", None),
    ("${:-x}", None),
    ("${.}", None),
    ("${PWD", None),
    ("${PWD:-", None),
    ("${PWD:=0}", None),
    ("${XXX:YYY}", None),
    ("${hi}xx", Some("xx")),
    ("${XXX:-000}x", Some("000x")),
    ("${NULL:-000}x", Some("000x")),
    ("${NULL-000}x", Some("x")),
    ("${XXX-000}x", Some("000x")),
    ("${XXX:-${YYY:-yyy}}x", Some("yyyx")),
    ("${PWD:+${PWD}:}x", Some("/home:x")),
    ("${NULL:+y}x", Some("x")),
    ("${NULL+y}x", Some("yx")),
    ("${PWD?}", Some("/home")),
    ("${NULL?}", Some("")),
    ("${NULL:?}", None),
    ("${XXX?}", None),
    (r"${XXX:-\$PWD:}x", Some("$PWD:x")),
    (r"${XXX:-\${PWD}z}x", Some("${PWDz}x")),
    ("'he${XX}'", Some("he${XX}")),
    (r#""he'$PWD'""#, Some("he'/home'")),
    ("안$KOREAN", Some("안한국어")),
    ("$@@@", Some("@@")),
    ("${999:-b}a", Some("ba")),
    ("$001a", Some("a")),
    ("${str#f*b}", Some("arbaz")),
    ("${str##f*b}", Some("az")),
    ("${str%b*}", Some("foobar")),
    ("${str%%b*}", Some("foo")),
    ("${str/ba/fo}", Some("fooforbaz")),
    ("${str//ba/fo}", Some("fooforfoz")),
    ("${str//ba?/$PWD}", Some("foo/home/home")),
    ("${str//o*/}", Some("f")),
    (r"${path/\//-}", Some("a-b}c*d")),
    (r"${path%\}*}", Some("a/b")),
    (r"${path/\*/+}", Some("a/b}c+d")),
    (r"${path/\q/+}", None),
    ("${path/a}", None),
    ("${str:#f}", None),
    ("a b", Some("a b")),
];

#[test]
fn one_word() {
    let expander = Expander::new('\\', &lookup);
    for (text, expected) in WORDS {
        assert_eq!(expander.word(text).ok().as_deref(), *expected, "{text}");
    }
}

#[test]
fn words() {
    let expander = Expander::new('\\', &lookup);
    for (text, expected) in [
        ("hello", vec!["hello"]),
        ("a${space}b", vec!["aabc", "defb"]),
        (r#"a"${space}"b"#, vec!["aabc  defb"]),
        (r#"hello "${space}"b"#, vec!["hello", "abc  defb"]),
        ("hello${lead}def", vec!["hello", "ab", "cdef"]),
        (r#"" there  ""#, vec![" there  "]),
        ("hello     there", vec!["hello", "there"]),
        (r"hello\ there", vec!["hello there"]),
        (r#"hello\" there"#, vec!["hello\"", "there"]),
        ("<<  EOF > foo", vec!["<<  EOF", ">", "foo"]),
        ("a<b", vec!["a<b"]),
        ("a${XXX:-b c}", vec!["ab", "c"]),
    ] {
        assert_eq!(expander.words(text).unwrap(), expected, "{text}");
    }
    assert!(expander.words(r#"hello" there"#).is_err());
}

#[test]
fn the_escape_character_can_be_another() {
    let expander = Expander::new('`', &lookup);
    assert_eq!(expander.word(r"C:\x`$PWD$PWD").unwrap(), r"C:\x$PWD/home");
}

#[test]
fn unset_variables_can_stay() {
    let expander = Expander { skip_unset: true, ..Expander::new('\\', &lookup) };
    assert_eq!(
        expander.word("$x ${x} ${x:-y} ${x#y} ${x//y/z} $PWD").unwrap(),
        "$x ${x} ${x:-y} ${x#y} ${x//y/z} /home"
    );
}

#[test]
fn depth_is_no_trouble() {
    let text = "${x:-".repeat(100_000);
    assert_eq!(Expander::new('\\', &lookup).word(&text), Err(ExpandError::TooDeep));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in r#"[a-c$\{\}:\\'"<\-+?#%/* \PC]{0,60}"#) {
        let expander = Expander::new('\\', &lookup);
        let _ = expander.word(&text);
        let _ = expander.words(&text);
    }
}
