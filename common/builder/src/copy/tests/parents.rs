//! `--parents`.

use super::*;

#[test]
fn parents_are_kept() {
    let parents = |sources: &[&str]| Job { parents: true, ..job(sources, "/x/") };
    assert_eq!(
        run(&parents(&["sub/deep/e.txt"]), "").unwrap(),
        ["x/", "x/sub/", "x/sub/deep/", "x/sub/deep/e.txt=sub/deep/e.txt"]
    );
    assert_eq!(
        run(&parents(&["./sub/./deep/*.txt"]), "").unwrap(),
        ["x/", "x/deep/", "x/deep/e.txt=sub/deep/e.txt"]
    );
    assert_eq!(
        run(&parents(&["sub/**/*.txt"]), "").unwrap(),
        ["x/", "x/sub/", "x/sub/d.txt=sub/d.txt", "x/sub/deep/", "x/sub/deep/e.txt=sub/deep/e.txt"]
    );
    let deep = ["x/", "x/sub/", "x/sub/deep/", "x/sub/deep/e.txt=sub/deep/e.txt"];
    for source in [
        "sub/../sub/deep/e.txt",
        "sub//deep//e.txt",
        "./sub//deep/e.txt",
        "sub/deep/.",
        "sub/deep/x/..",
        "../sub/deep",
        "s*b/x/../deep/e.txt",
        "sub/deep/../deep/*",
        "/sub/deep/e.txt/.",
    ] {
        assert_eq!(run(&parents(&[source]), "").unwrap(), deep, "{source}");
    }
    let below = ["x/", "x/deep/", "x/deep/e.txt=sub/deep/e.txt"];
    for source in ["sub/./deep", "sub/./x/../deep/", "sub/./de*p", "s*b/./deep/e.txt", "sub/./../deep"] {
        assert_eq!(run(&parents(&[source]), "").unwrap(), below, "{source}");
    }
    let all = ["x/", "x/d.txt=sub/d.txt", "x/deep/", "x/deep/e.txt=sub/deep/e.txt"];
    assert_eq!(run(&parents(&["sub/./."]), "").unwrap(), all);
    // A link among the parents becomes a directory.
    for source in ["sublink/deep/e.txt", "sublink/deep/*.txt", "sublink/**/e.txt"] {
        let linked = ["x/", "x/sublink/", "x/sublink/deep/", "x/sublink/deep/e.txt=sub/deep/e.txt"];
        assert_eq!(run(&parents(&[source]), "").unwrap(), linked, "{source}");
    }
    // A pattern before the pivot may mean several directories.
    let job = parents(&["sub*/./d.txt", "s*/./deep/*"]);
    assert_eq!(run(&job, "").unwrap(), ["x/", "x/d.txt=sub/d.txt", "x/deep/", "x/deep/e.txt=sub/deep/e.txt"]);
    for (source, ignore) in [
        ("sub/none", ""),
        ("sub/none/..//none", ""),
        ("none/./sub", ""),
        ("a.txt/./x", ""),
        ("a.txt/./.", ""),
        ("sub/d.txt", "sub"),
        ("sublink/d.txt", "sub"),
    ] {
        assert!(run(&parents(&[source]), ignore).is_err(), "{source}");
    }
    // A pattern without a match makes the destination, unless its pivot is the pattern.
    for source in ["none*/x", "s*b/none", "a.txt/*", "sub/./none*", "none/*"] {
        assert_eq!(run(&parents(&[source]), "").unwrap(), ["x/"], "{source}");
    }
    assert!(run(&parents(&["none*/./x"]), "").unwrap().is_empty());
}
