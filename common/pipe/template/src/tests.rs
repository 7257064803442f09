//! What templates print. The expected texts are those of Go 1.22's `text/template`.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn data() -> Value {
    json!({"ID": "7f", "Names": "web", "Count": 3, "Half": 0.5, "Up": true, "None": null,
        "Args": ["sh", "-c", "true"], "Labels": {"b": "2", "a": "1"},
        "Ports": {"80/tcp": [{"HostPort": "10080"}]}, "Networks": {"front": {"IPAddress": "10.0.0.2"}}})
}

fn fill(template: &str, data: &Value) -> Result<String> {
    let calls = |name: &str, arguments: &[Value]| match (name, arguments) {
        ("Label", [Value::String(key)]) => {
            Some(data["Labels"].get(key).cloned().unwrap_or_else(|| "".into()))
        }
        _ => None,
    };
    template.parse::<Template>()?.fill(data, Mode::Values, &calls)
}

#[test]
fn templates_are_filled_in() {
    for (template, text) in [
        ("plain { } text", "plain { } text"),
        ("{{.ID}}: {{ .Names }}", "7f: web"),
        ("{{json .Args}} {{.Args | json}}", r#"["sh","-c","true"] ["sh","-c","true"]"#),
        (
            "{{.Args}} {{.Labels}} {{.None}} {{.Up}} {{.Half}}",
            "[sh -c true] map[a:1 b:2] <no value> true 0.5",
        ),
        ("{{range .Args}}<{{.}}>{{end}}", "<sh><-c><true>"),
        ("{{range $i, $e := .Args}}{{if $i}},{{end}}{{$e}}{{end}}", "sh,-c,true"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}", "a=1 b=2 "),
        ("{{range .None}}x{{else}}none{{end}}", "none"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{range .Args}}{{if eq . \"-c\"}}{{continue}}{{end}}{{.}}{{end}}", "shtrue"),
        ("{{range .Args}}{{if eq . \"-c\"}}{{break}}{{end}}{{.}}{{end}}", "sh"),
        ("{{range .Networks}}{{.IPAddress}}{{end}}", "10.0.0.2"),
        ("{{.Networks.front.IPAddress}}", "10.0.0.2"),
        ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "10080"),
        ("{{(index .Ports \"80/tcp\" 0).HostPort}}", "10080"),
        ("{{index .Labels \"a\"}}{{index .Labels \"no\"}}|{{.Labels.no}}", "1|<no value>"),
        ("{{index .None \"a\"}} {{len .None}} {{.None | len}}", "<no value> 0 0"),
        ("{{.Label \"a\"}}{{.Label \"no\"}}", "1"),
        ("{{with .Names}}{{.}}{{$.ID}}{{end}}", "web7f"),
        ("{{with .None}}x{{else with .ID}}{{.}}{{end}}", "7f"),
        ("{{if .None}}a{{else if .Up}}b{{else}}c{{end}}", "b"),
        ("{{if and .Up (gt .Count 2)}}y{{end}}{{if or .None false}}n{{end}}{{if not .Up}}n{{end}}", "y"),
        ("{{$x := 1}}{{range .Args}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ("{{$x := 1}}{{if true}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "21"),
        ("a  {{- .ID -}}  b", "a7fb"),
        ("a {{/* note */ -}} b", "a b"),
        ("{{\"q\\\"\\t\\u00e9\"}}{{`raw\\n`}}", "q\"\t\u{e9}raw\\n"),
        ("{{len .Args}} {{len .ID}} {{slice .ID 1}} {{slice .Args 0 1}}", "3 2 f [sh]"),
        (
            "{{printf \"%-5s|%5s|%03d|%q|%v|%x|%.1f|%%\" .ID .ID 7 .ID .Args 255 .Half}}",
            "7f   |   7f|007|\"7f\"|[sh -c true]|ff|0.5|%",
        ),
        (
            "{{join .Args \" \"}} {{index (split .ID \"f\") 0}} {{upper .ID}} {{lower \"A\"}} {{title \"a b\"}}",
            "sh -c true 7 7F a A B",
        ),
        (
            "{{truncate .Names 2}} {{pad .ID 1 2}}|{{print .ID 1 2 .ID}}|{{println 1 2}}",
            "we  7f  |7f1 27f|1 2\n",
        ),
        (
            "{{eq .ID \"a\" \"7f\"}} {{ne .Count 3}} {{lt 1 2}} {{ge 1.5 1}} {{eq .None nil}}",
            "true false true true true",
        ),
        ("{{.ID | printf \"%s-%s\" .Names | upper}}", "WEB-7F"),
        ("{{\"}}\"}}", "}}"),
    ] {
        assert_eq!(fill(template, &data()), Ok(text.to_owned()), "{template}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let deep = "{{if true}}".repeat(100);
    let parentheses = format!("{{{{{}1}}}}", "(".repeat(100_000));
    let fields = format!("{{{{.{}}}}}", "a.".repeat(100_000));
    let long = "{{range 1000}}{{range 1000}}{{range 1000}}{{end}}{{end}}{{end}}";
    let wide = "{{range 1000000}}{{printf \"%9999s\" \"\"}}{{end}}";
    for (template, error) in [
        (
            "{{.No}}",
            "template, character 3: no field .No; there are ID, Names, Count, Half, Up, None, Args, Labels, Ports, Networks",
        ),
        ("{{.ID.X}}", "template, character 3: no field .X: it is a text"),
        ("{{.None.X}}", "template, character 3: no field .X: it is no value"),
        ("{{.ID", "template, character 1: the action has no }}"),
        ("{{", "template, character 1: the action has no }}"),
        ("{{}}", "template, character 3: a value is missing"),
        ("{{\"a}}", "template, character 3: the text has no end"),
        ("{{/* }}", "template, character 1: the comment has no */}}"),
        ("{{if .ID}}", "template, character 1: it has no {{end}}"),
        ("{{end}}", "template, character 8: there is no if, with or range that it belongs to"),
        ("{{else}}", "template, character 7: there is no if, with or range that it belongs to"),
        ("{{if 1}}{{else}}{{else}}{{end}}", "template, character 1: it has no {{end}} after its {{else}}"),
        ("{{break}}", "template, character 1: break is outside of range"),
        ("{{define \"x\"}}{{end}}", "template, character 1: define is not supported"),
        ("{{html .ID}}", "template, character 3: function \"html\" is not supported"),
        ("{{$x}}", "template, character 3: undefined variable $x"),
        ("{{$x = 1}}", "template, character 3: undefined variable $x"),
        ("{{.ID .ID}}", "template, character 3: .ID takes no arguments"),
        ("{{1 2}}", "template, character 3: it is no function and takes no arguments"),
        ("{{1 | 2}}", "template, character 7: expected a function after |"),
        ("{{(1}}", "template, character 5: expected )"),
        ("{{len 1}}", "template, character 3: a number has no length"),
        ("{{len}}", "template, character 3: len does not take these arguments: none"),
        ("{{index .Args 3}}", "template, character 3: the list has 3 elements, and none at 3"),
        ("{{index .Args -1}}", "template, character 3: the list has 3 elements, and none at -1"),
        ("{{slice .ID 3 1}}", "template, character 3: no part from 3 to 1 of 2"),
        ("{{lt .ID 1}}", "template, character 3: a text and a number cannot be compared"),
        ("{{printf \"%d\" .ID}}", "template, character 3: printf: %d does not take a text"),
        ("{{printf \"%99999999999999999999s\" .ID}}", "template, character 3: printf: wider than 10000"),
        ("{{range .ID}}{{end}}", "template, character 9: range does not take a text"),
        ("{{range 99999999999}}{{end}}", "template, character 9: range does not take a number"),
        ("{{'a'}}", "template, character 3: a character constant has no meaning here: write \"text\""),
        ("{{1x}}", "template, character 3: \"1x\" is no number"),
        ("{{é#}}", "template, character 4: '#' has no meaning here"),
        (&deep, "template, character 710: nested deeper than 64"),
        (&parentheses, "template, character 68: nested deeper than 64"),
        (&fields, "template, character 133: a field has a name"),
        (long, "template, character 37: more than 1000000 steps"),
        (wide, "template, character 20: the text is longer than 16777216 bytes"),
    ] {
        let shown: String = template.chars().take(60).collect();
        assert_eq!(
            fill(template, &data()).map_err(|error| error.to_string()),
            Err(error.to_owned()),
            "{shown}"
        );
    }
}

#[test]
fn escapes_are_for_text_alone() {
    let template: Template =
        r#"a\t{{if .Up}}\n{{join .Args "\n"}}{{end}}{{range .Args}}\t{{end}}"#.parse().unwrap();
    let text = template.unescaped().fill(&data(), Mode::Values, &|_, _| None);
    assert_eq!(text.unwrap(), "a\t\nsh\n-c\ntrue\t\t\t");
}

#[test]
fn headings_pass_through_functions() {
    let template: Template = "{{json .ID}}\t{{lower .Names}}\t{{.Label \"a.b\"}}".parse().unwrap();
    let heading = |name: &str, _: &[Value]| (name == "Label").then(|| "b".into());
    let headings = json!({"ID": "CONTAINER ID", "Names": "NAMES"});
    assert_eq!(template.fill(&headings, Mode::Headings, &heading).unwrap(), "CONTAINER ID\tNAMES\tb");
}

#[test]
fn columns_are_runs_of_cells() {
    assert_eq!(align("A\tB\nlonger-than-ten\tx\n"), "A                 B\nlonger-than-ten   x\n");
    assert_eq!(align("A\tB\tC\nno\n1\t2\t\n"), "A         B         C\nno\n1         2         \n");
    assert_eq!(align(""), "");
}

proptest! {
    /// Whatever a template is: a text or an error, no panic, and in time.
    #[test]
    fn nothing_panics(words in prop::collection::vec(prop::sample::select(vec![
        "{{", "}}", "-", " ", ".", ".ID", ".Args", "$", "$x", ":=", "=", "(", ")", "|", ",", "range", "if", "else", "end", "with",
        "break", "index", "slice", "printf", "\"%s%d\"", "1", "-1", "0x", "é", "\"", "`", "/*", "*/", "and", "len", "text", "\\n",
    ]), 0..40)) {
        let _ = fill(&words.concat(), &data());
        let _ = fill(&words.join(" "), &data());
    }

    #[test]
    fn any_text_is_taken(text in ".{0,60}") {
        let _ = fill(&text, &data());
        let _ = fill(&format!("{{{{{text}}}}}"), &data());
        let _ = align(&text);
    }
}
