//! Rules against a fake tree, and each verdict on values from both sides.

use super::*;
use std::fs;
use std::path::PathBuf;

fn tree(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let root = std::env::temp_dir().join(format!("pelton-tuning-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&root);
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn state(findings: &[Finding], code: &str) -> (State, String) {
    let finding = findings.iter().find(|finding| finding.code == code).unwrap();
    (finding.state, finding.current.clone())
}

#[test]
fn rules_read_the_tree_they_are_given() {
    let root = tree(
        "read",
        &[
            ("proc/sys/kernel/osrelease", "5.15.0-91-generic\n"),
            ("proc/sys/kernel/io_uring_disabled", "2\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n"),
            ("proc/sys/net/core/somaxconn", "128\n"),
            ("proc/sys/net/ipv4/tcp_congestion_control", "bbr\n"),
        ],
    );
    let findings = check_at(&Machine { root: &root, data_dir: &root });
    assert_eq!(state(&findings, "K01"), (State::Fatal, "5.15.0-91-generic".to_string()));
    assert_eq!(state(&findings, "K02"), (State::Fatal, "2".to_string()));
    assert_eq!(state(&findings, "M02"), (State::Warn, "always".to_string()));
    assert_eq!(state(&findings, "N01"), (State::Warn, "128".to_string()));
    assert_eq!(state(&findings, "N02"), (State::Info, "bbr".to_string()));
    assert_eq!(state(&findings, "C01").0, State::Unknown);
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_kernel_without_the_switch_has_it_on() {
    let root = tree("switch", &[("proc/sys/kernel/osrelease", "6.1.0")]);
    let findings = check_at(&Machine { root: &root, data_dir: &root });
    assert_eq!(state(&findings, "K01").0, State::Ok);
    assert_eq!(state(&findings, "K02").0, State::Ok);
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn verdicts_have_two_sides() {
    for (code, good, bad) in [
        ("K01", "6.18.5", "6.0.19"),
        ("K02", "0", "1"),
        ("M01", "unlimited", "8388608"),
        ("M02", "madvise", "always"),
        ("F01", "1048576", "20000"),
        ("D01", "xfs", "tmpfs"),
        ("D02", "none", "mq-deadline"),
        ("D03", "1073741824", "1073741823"),
        ("N01", "4096", "4095"),
        ("N02", "cubic", "bbr"),
        ("C01", "performance", "powersave"),
        ("C02", "tsc", "hpet"),
    ] {
        let rule = RULES.iter().find(|rule| rule.code == code).unwrap();
        assert_eq!((rule.judge)(good), State::Ok, "{code} {good}");
        assert_ne!((rule.judge)(bad), State::Ok, "{code} {bad}");
    }
    assert_eq!(RULES.len(), 12, "every rule has a row above");
}

#[test]
fn codes_are_unique_and_this_machine_answers() {
    let mut codes: Vec<&str> = RULES.iter().map(|rule| rule.code).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), RULES.len());
    let findings = check(&std::env::temp_dir());
    assert_ne!(state(&findings, "K01").0, State::Unknown);
    assert_ne!(state(&findings, "D03").0, State::Unknown);
    assert_ne!(state(&findings, "D01").0, State::Unknown);
}

#[test]
fn a_missing_directory_is_unknown_not_a_crash() {
    let findings = check(&PathBuf::from("/does/not/exist"));
    assert_eq!(state(&findings, "D03").0, State::Unknown);
    assert_eq!(state(&findings, "D02").0, State::Unknown);
}
