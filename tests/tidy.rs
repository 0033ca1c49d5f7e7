//! What the tree promises, checked: which crate may use which, what pure crates never call, sizes, and that the map in
//! ARCHITECTURE.md is the tree. `cargo tidy` runs only this.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Who may use whom: left uses right, nothing else (DESIGN section 2).
const ARROWS: &[(&str, &[&str])] = &[
    ("shards/model", &[]),
    ("shards/wire", &["model"]),
    ("shards/log", &["wire", "model"]),
    ("shards/replica", &["log", "wire", "model"]),
    ("shards/cluster", &["wire", "model"]),
    ("shards/group", &["wire", "model"]),
    ("shards/shard", &["wire", "log", "replica", "cluster", "group", "model"]),
    ("shards/reactor", &["shard", "model"]),
    ("tuning", &["model"]),
    (".", &["reactor", "shard", "tuning", "wire", "model", "cluster", "log"]),
];

/// Crates that decide and do nothing.
const PURE: &[&str] = &["model", "wire", "log", "replica", "cluster", "group", "shard"];

/// What a pure crate never names, and what to use instead.
const BANNED: &[(&str, &str)] = &[
    ("Instant::now", "the `now` of the event"),
    ("SystemTime::now", "the `now` of the event"),
    ("std::fs", "a DiskEffect"),
    ("std::net", "an Effect"),
    ("std::thread", "another shard"),
    ("thread_rng", "model::Prng with a seed from outside"),
    ("rand::", "model::Prng with a seed from outside"),
    ("std::collections::HashMap", "BTreeMap: its order repeats"),
    ("std::collections::HashSet", "BTreeSet: its order repeats"),
    ("async fn", "an event and an effect"),
    ("println!", "Effect::Log"),
    ("eprintln!", "Effect::Log"),
    ("todo!(", "the code"),
    ("unimplemented!(", "the code"),
];

/// A file is about one thing; past this many lines it is about two.
const FILE_LINES_MAX: usize = 600;
/// A function fits a screen.
const FUNCTION_LINES_MAX: usize = 75;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().to_string();
        if path.is_dir() && !name.starts_with('.') && !name.starts_with("target") && name != "node_modules" {
            rust_files(&path, into);
        } else if name.ends_with(".rs") {
            into.push(path);
        }
    }
}

fn sources(dirs: &[&str]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for dir in dirs {
        rust_files(&root().join(dir), &mut files);
    }
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path.strip_prefix(root()).unwrap().display().to_string(), text)
        })
        .collect()
}

/// The part of a manifest that says what the crate is built from (not its tests).
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut section = "";
    let mut found = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line.trim();
        } else if section == "[dependencies]"
            && let Some(name) = line.strip_prefix("pelton-")
        {
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '-').unwrap_or(name.len());
            found.insert(name[..end].to_string());
        }
    }
    found
}

#[test]
fn arrows_are_those_of_the_architecture() {
    for (dir, allowed) in ARROWS {
        let manifest = fs::read_to_string(root().join(dir).join("Cargo.toml")).unwrap();
        for used in dependencies(&manifest) {
            assert!(
                allowed.contains(&used.as_str()),
                "{dir} must not use pelton-{used}; allowed: {allowed:?}"
            );
        }
    }
    let sim = fs::read_to_string(root().join("tests/sim/Cargo.toml")).unwrap();
    assert!(!dependencies(&sim).contains("reactor"), "the simulator never uses the reactor");
}

#[test]
fn pure_crates_do_no_io_and_have_no_clock() {
    let dirs: Vec<String> = PURE.iter().map(|name| format!("shards/{name}/src")).collect();
    let dirs: Vec<&str> = dirs.iter().map(String::as_str).collect();
    for (file, text) in sources(&dirs) {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            for (banned, instead) in BANNED {
                assert!(
                    !code.contains(banned),
                    "{file}:{}: {banned} in a pure crate; use {instead}",
                    number + 1
                );
            }
        }
    }
}

#[test]
fn unsafe_stays_in_the_reactor() {
    for name in PURE {
        let lib = fs::read_to_string(root().join(format!("shards/{name}/src/lib.rs"))).unwrap();
        assert!(lib.contains("(unsafe_code)]"), "shards/{name}/src/lib.rs must forbid unsafe_code");
    }
}

#[test]
fn runtime_and_rings_are_named_in_the_reactor_only() {
    for (file, text) in sources(&["shards", "src"]) {
        if file.starts_with("shards/reactor") {
            continue;
        }
        for name in ["glommio::", "io_uring::"] {
            assert!(!text.contains(name), "{file} names {name}; only shards/reactor may");
        }
    }
}

#[test]
fn files_begin_with_what_they_are_and_stay_small() {
    let mut wrong = Vec::new();
    for (file, text) in sources(&["shards", "src", "tuning", "bench", "tests"]) {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{file}: {lines} lines, at most {FILE_LINES_MAX}"));
        }
        let test_file = file.ends_with("/tests.rs") || file.contains("/tests/");
        if !text.trim_start().starts_with("//!") && !test_file {
            wrong.push(format!("{file}: does not open with //! what it is"));
        }
        wrong.extend(long_functions(&file, &text));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn long_functions(file: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut open: Option<(usize, usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        match &open {
            None => {
                let start = line.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("pub ");
                let start = start.trim_start_matches("const ").trim_start_matches("async ");
                let start = start.trim_start_matches("unsafe ");
                if start.starts_with("fn ")
                    && !line.trim_end().ends_with('}')
                    && !line.trim_end().ends_with(';')
                {
                    open = Some((number, indent, start.to_string()));
                }
            }
            Some((from, at, name)) => {
                if indent == *at && line.trim_start().starts_with('}') {
                    let length = number - from + 1;
                    if length > FUNCTION_LINES_MAX {
                        wrong.push(format!(
                            "{file}:{}: {length} lines, at most {FUNCTION_LINES_MAX}: {name}",
                            from + 1
                        ));
                    }
                    open = None;
                } else if indent == *at && line.trim_end().ends_with(';') && number > *from {
                    open = None;
                }
            }
        }
    }
    wrong
}

/// The map is the first code block of ARCHITECTURE.md after "## Map": one path a line, what it is behind it.
#[test]
fn map_in_architecture_equals_the_tree() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let block = text.split("## Map").nth(1).and_then(|rest| rest.split("```").nth(1)).expect("a map");
    let mut mapped = BTreeSet::new();
    for line in block.lines().skip(1).filter(|line| !line.trim().is_empty()) {
        let path = line.split_whitespace().next().unwrap();
        assert!(root().join(path).exists(), "ARCHITECTURE.md maps {path}, which does not exist");
        assert!(line.split_whitespace().count() > 2, "ARCHITECTURE.md does not say what {path} is");
        mapped.insert(path.trim_end_matches('/').to_string());
    }
    for dir in ["shards", "src", "tuning", "bench", "tests"] {
        for (file, _) in sources(&[dir]) {
            let covered = mapped.contains(&file)
                || Path::new(&file).ancestors().skip(1).any(|a| {
                    let a = a.display().to_string();
                    mapped.contains(&a) && !has_file_rows(&mapped, &a)
                });
            assert!(covered, "{file} is not on the map in ARCHITECTURE.md");
        }
    }
}

/// A folder some of whose files have rows of their own must list them all.
fn has_file_rows(mapped: &BTreeSet<String>, dir: &str) -> bool {
    mapped.iter().any(|path| {
        path.strip_prefix(dir)
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|rest| rest.ends_with(".rs"))
    })
}

#[test]
fn no_ignored_tests_and_no_machine_paths() {
    for (file, text) in sources(&["shards", "src", "tuning", "bench", "tests"]) {
        if file == "tests/tidy.rs" {
            continue;
        }
        assert!(!text.contains("#[ignore"), "{file}: an ignored test");
        for path in ["/root/", "/work/"] {
            assert!(!text.contains(path), "{file} names {path}, a path of one machine");
        }
    }
}
