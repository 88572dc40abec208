//! The one way of dependencies: a row uses the rows below it, never one above (`docs/ARCHITECTURE.md`).
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers as well")]

use std::fs;
use std::path::{Path, PathBuf};

/// From below to above. A module belongs to the longest name that fits it.
const ROWS: &[(&str, &[&str])] = &[
    ("core", &["song", "credit", "provider::failure", "chance", "id", "mutant", "time"]),
    ("doors out", &["store", "provider", "cluster", "config", "auth", "credit::seats"]),
    (
        "shells",
        &[
            "song::actor",
            "song::directory",
            "song::places",
            "song::queueing",
            "song::recovery",
            "song::submission",
            "song::sweeper",
            "asset",
        ],
    ),
    ("doors in", &["api", "callback", "realtime", "ops", "simulator"]),
    ("the whole", &["app", "fuzzing"]),
    ("the command line", &["cli", "main", "lib"]),
];

/// What the core knows nothing of.
const OUTSIDE: &[&str] =
    &["actix", "actix_web", "tokio", "tokio_postgres", "deadpool_postgres", "reqwest", "std::net", "std::fs"];

#[test]
fn no_module_uses_one_of_a_row_above() {
    let mut wrong = Vec::new();
    for (module, text) in modules() {
        for used in used(&module, &text) {
            if row(&used) > row(&module) {
                wrong.push(format!(
                    "{module} ({}) uses {used} ({})",
                    ROWS[row(&module)].0,
                    ROWS[row(&used)].0
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_core_knows_neither_frameworks_nor_the_world() {
    let mut wrong = Vec::new();
    // The clock is Tokio's, so that a simulation can hold it still; what the core is given is a `Time`.
    for (module, text) in modules().into_iter().filter(|(module, _)| row(module) == 0 && module != "time") {
        for outside in OUTSIDE {
            if code(&text).any(|line| names(line, outside)) {
                wrong.push(format!("{module} names {outside}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Clippy sees that nobody asks the machine for the time (`clippy.toml`); this, that nobody does by another way.
#[test]
fn clocks_are_read_in_one_place() {
    for (module, text) in
        modules().into_iter().filter(|(module, _)| module != "time" && !module.ends_with("tests"))
    {
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for read in [".elapsed()", "Instant::now()"] {
            assert!(!code(text).any(|line| line.contains(read)), "{module} reads a clock: {read}");
        }
    }
}

#[test]
fn the_simulator_shares_no_code_with_what_it_tests() {
    const MAY: [&str; 4] = ["simulator", "chance", "id", "time"];
    for (module, text) in modules().into_iter().filter(|(module, _)| module.starts_with("simulator")) {
        for used in used(&module, &text) {
            assert!(MAY.iter().any(|may| below(&used, may)), "{module} uses {used}");
        }
    }
}

#[test]
fn every_module_belongs_to_a_row() {
    assert!(modules().len() > 60, "the sources are found");
    for (module, _) in modules() {
        row(&module);
    }
}

#[test]
fn every_page_that_is_named_is_there() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let pages = ["", "providers"].map(|folder| docs.join(folder));
    let mut missing = Vec::new();
    for (module, text) in modules() {
        for page in text
            .split(|c: char| !(c.is_alphanumeric() || "._-".contains(c)))
            .filter(|word| word.ends_with(".md"))
        {
            if !page.starts_with('.') && !pages.iter().any(|folder| folder.join(page).exists()) {
                missing.push(format!("{module} names {page}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn the_code_map_leaves_no_module_out() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md");
    let map = fs::read_to_string(page).unwrap();
    let map = map.split("## The code map").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let words: Vec<&str> = map.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
    for (module, _) in modules() {
        let parts: Vec<&str> = module.split("::").collect();
        // Of the doors a room is named, of the songs' life and the store every file.
        let named = match parts[..] {
            ["song" | "store" | "auth", file] => file,
            [room, ..] => room,
            [] => continue,
        };
        assert!(
            ["tests", "lib"].contains(&named) || words.contains(&named),
            "{module} has no row in the code map"
        );
    }
}

/// The row of a module, counted from below.
fn row(module: &str) -> usize {
    let fits = |name: &&str| below(module, name);
    let names =
        ROWS.iter().enumerate().flat_map(|(row, (_, names))| names.iter().map(move |name| (row, *name)));
    let best = names.filter(|(_, name)| fits(name)).max_by_key(|(_, name)| name.len());
    best.unwrap_or_else(|| panic!("{module} stands in no row: enter it in ROWS")).0
}

/// Whether `module` is `name` or lies in it.
fn below(module: &str, name: &str) -> bool {
    module.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Every module with its text.
fn modules() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &mut found);
    let name = |path: &PathBuf| {
        let path = path.strip_prefix(&root).unwrap().with_extension("");
        let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        parts.join("::").trim_end_matches("::mod").to_owned()
    };
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, found),
            false if path.extension().is_some_and(|end| end == "rs") => found.push(path),
            false => {}
        }
    }
}

/// The modules of ours that a text names, by `crate::` or `super::`, wherever it does.
fn used(module: &str, text: &str) -> Vec<String> {
    let text: String = code(text).collect::<Vec<_>>().join("\n");
    let parent = module.rsplit_once("::").map_or(String::new(), |(parent, _)| format!("{parent}::"));
    let mut found = Vec::new();
    for (start, base) in [("crate::", String::new()), ("super::", parent)] {
        for (at, _) in text.match_indices(start) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':') {
                continue;
            }
            let rest = &text[at + start.len()..];
            let end = rest.find(|letter: char| !(letter.is_alphanumeric() || letter == '_' || letter == ':'));
            let path = &rest[..end.unwrap_or(rest.len())];
            let group = rest[path.len()..].strip_prefix('{').and_then(|group| group.split('}').next());
            let names = group.unwrap_or("").split(',').map(|name| name.trim().to_owned());
            // `super::*` is a test's view of the module it stands in.
            found.extend(
                names
                    .filter(|name| !(path.is_empty() && name.is_empty()))
                    .map(|name| format!("{base}{path}{name}")),
            );
        }
    }
    found.retain(|path| path.split("::").next().is_some_and(is_module));
    found.into_iter().map(|path| path.trim_end_matches(':').to_owned()).collect()
}

/// Of the crate's root; what else stands after `super::` there is an item of that very module.
fn is_module(name: &str) -> bool {
    ROWS.iter().flat_map(|(_, names)| *names).any(|known| known.split("::").next() == Some(name))
}

/// The lines that are no comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// Whether a line has this path as a whole name, followed by `::`.
fn names(line: &str, path: &str) -> bool {
    let whole = |at: usize| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':')
    };
    line.match_indices(path).any(|(at, _)| whole(at) && line[at + path.len()..].starts_with("::"))
}
