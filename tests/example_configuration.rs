//! `docs/songflight.example.toml` is what the program understands: every key, with its default.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use songflight::config::{Config, describe};

#[test]
fn the_example_changes_nothing() {
    let loaded = Config::load_from(Some(&example()), []).expect("the example");
    let defaults = Config::load_from(None, []).expect("the defaults");
    let values = |text: String| -> Vec<String> {
        text.lines().map(|line| line.split("# ").next().unwrap_or_default().trim().to_owned()).collect()
    };
    assert_eq!(values(describe(&loaded)), values(describe(&defaults)));
}

#[test]
fn the_example_has_every_key_and_each_line_that_is_commented_out_would_be_understood() {
    let text = std::fs::read_to_string(example()).expect("the example");
    let whole: Vec<&str> = text.lines().map(uncommented).collect();
    let path = std::env::temp_dir().join(format!("songflight-example-{}.toml", std::process::id()));
    std::fs::write(&path, whole.join("\n")).expect("a file");
    let loaded = Config::load_from(Some(&path), []).expect("the example, all of it");
    std::fs::remove_file(path).expect("the file");

    // The three other providers show two keys and say that they have all.
    let unset: BTreeSet<&str> =
        loaded.sources.keys().map(String::as_str).filter(|key| !loaded.is_chosen(key)).collect();
    let others = ["providers.mureka.", "providers.minimax.", "providers.musicgpt."];
    let forgotten: Vec<_> =
        unset.into_iter().filter(|key| !others.iter().any(|other| key.starts_with(other))).collect();
    assert!(forgotten.is_empty(), "{forgotten:?}");
}

/// A setting that is commented out has no space after the sign; a comment has.
fn uncommented(line: &str) -> &str {
    line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line)
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/songflight.example.toml")
}
