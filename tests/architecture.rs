//! The layers of design.md section 5, held: who may import what, where the world may be touched, where unsafe code may stand.

mod source;

use source::{Source, sources, words};
use std::collections::BTreeSet;
use std::path::Path;

/// What each module may import. A module that isn't here may import everything and be imported by the binary alone.
const LAYERS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("wire", &["base"]),
    ("presence", &["base", "wire", "store"]),
    ("link", &["base", "wire"]),
    ("store", &["base"]),
    ("ownership", &["base", "store"]),
    ("front", &["base", "wire"]),
    ("ring", &["base"]),
    ("metrics", &["base"]),
    ("shard", &["base", "wire", "presence", "link", "store", "front", "ring", "metrics", "ownership"]),
    ("client", &["base", "wire"]),
    ("drive", &["base", "wire", "shard", "front", "ring", "metrics"]),
    ("sim", &["base", "wire", "presence", "link", "ownership", "shard", "front", "ring", "store", "metrics", "client"]),
    ("admin", &["base", "wire", "store", "metrics"]),
    ("node", &["link", "base", "wire", "presence", "store", "front", "ring", "metrics", "shard", "drive", "admin", "ownership"]),
    ("bench", &["base", "wire", "presence", "store", "front", "ring", "metrics", "shard", "drive", "admin", "node", "client"]),
];

/// Modules that are functions of bytes, values and time; in `store`, all but the files named.
const PURE: &[&str] = &["base", "wire", "presence", "link", "ownership", "front", "shard", "sim"];
const PURE_STORE: &[&str] = &["src/store/mod.rs", "src/store/rows.rs", "src/store/memory.rs"];

/// The world, as it's spelt in Rust.
const WORLD: &[&str] = &[
    "Instant",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "std::io::stdin",
    "std::io::stdout",
    "thread_rng",
    "getrandom",
    "RandomState::new",
    "libc",
    "println!",
    "eprintln!",
];

const UNSAFE: &[&str] = &["src/ring/", "src/drive/", "src/wire/generated/"];

/// The top module a file belongs to: `base` for `src/base/id.rs`.
fn module(path: &str) -> &str {
    let below = path.strip_prefix("src/").unwrap_or(path);
    below.split('/').next().unwrap_or(below).trim_end_matches(".rs")
}

/// The top modules that this code names through `crate::` or `fanal::`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for root in ["crate::", "fanal::"] {
        for (at, _) in code.match_indices(root) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let rest = code[at + root.len()..].trim_start();
            match rest.strip_prefix('{') {
                Some(group) => found.extend(top_names(group)),
                None => found.extend(name_at(rest)),
            }
        }
    }
    found
}

fn name_at(code: &str) -> Option<String> {
    let end = code.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(code.len());
    (end > 0).then(|| code[..end].to_owned())
}

/// The first name of each member of `{a::b, c::{d, e}}`, given what follows the brace.
fn top_names(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut names) = (1, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || depth == 1 && c == ',' {
            names.extend(name_at(group[start..at].trim_start()));
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn layer_faults(source: &Source) -> Vec<String> {
    let from = module(&source.path);
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == from) else { return Vec::new() };
    let is_module = |name: &&String| LAYERS.iter().any(|(layer, _)| layer == name);
    let wrong = |name: &&String| name.as_str() != from && !allowed.contains(&name.as_str());
    let imports = imports(source.shipped());
    let faults = imports.iter().filter(is_module).filter(wrong);
    faults.map(|to| format!("{}: {from} may not import {to}", source.path)).collect()
}

/// `super` chains that lead to another top module would escape the check of imports.
fn escape_faults(source: &Source) -> Vec<String> {
    let code = source.shipped();
    let own = module(&source.path);
    let named = code.match_indices("super::").filter_map(|(at, word)| Some((at, name_at(&code[at + word.len()..])?)));
    let depth = source.path.trim_end_matches("/mod.rs").matches('/').count();
    let leaves = |at: usize| code[..at + "super::".len()].ends_with(&"super::".repeat(depth));
    let escapes = named.filter(|(at, name)| leaves(*at) && name != own && LAYERS.iter().any(|(layer, _)| layer == name));
    escapes.map(|(at, name)| format!("{}:{}: write crate::{name}", source.path, source.line(at))).collect()
}

fn is_pure(path: &str) -> bool {
    PURE.contains(&module(path)) || PURE_STORE.contains(&path)
}

fn world_faults(source: &Source) -> Vec<String> {
    let code = source.shipped();
    let uses = WORLD.iter().flat_map(|word| words(code, word).map(move |at| (word, at)));
    uses.map(|(word, at)| format!("{}:{}: {word} in a pure module", source.path, source.line(at))).collect()
}

fn unsafe_faults(source: &Source) -> Vec<String> {
    if UNSAFE.iter().any(|place| source.path.starts_with(place)) {
        return Vec::new();
    }
    words(&source.code, "unsafe").map(|at| format!("{}:{}: unsafe code may not stand here", source.path, source.line(at))).collect()
}

fn assert_none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_module_imports_only_what_its_layer_may() {
    let sources = sources(&["src"]);
    assert!(sources.len() > 10, "the source was not found");
    assert_none(sources.iter().filter(|source| !source.is_generated()).flat_map(layer_faults).collect());
}

#[test]
fn no_super_leaves_its_top_module() {
    assert_none(sources(&["src"]).iter().filter(|source| !source.is_generated()).flat_map(escape_faults).collect());
}

#[test]
fn the_pure_modules_touch_no_clock_socket_file_thread_or_global_randomness() {
    assert_none(sources(&["src"]).iter().filter(|source| is_pure(&source.path)).flat_map(world_faults).collect());
}

/// Every test that the driver's table of pitfalls names is there, and the table has every section of pitfalls.
#[test]
fn the_drivers_pitfalls_have_the_tests_they_name() {
    let text = |path: &str| std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).expect("a file of ours");
    let tests = ["tests/drive/main.rs", "tests/drive/dial.rs", "tests/node_limits.rs"].map(text).concat();
    let driver = text("src/drive/mod.rs");
    let table: Vec<&str> = driver.lines().filter(|line| line.starts_with("//! | ")).collect();
    for section in (1..=12).map(|number| format!("//! | A{number} ")) {
        assert!(table.iter().any(|line| line.starts_with(&section)), "{section} is missing");
    }
    let is_test = |name: &&str| name.matches('_').count() >= 3 && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let named: Vec<&str> = table.iter().flat_map(|line| line.split('`')).filter(is_test).collect();
    assert!(named.len() > 10, "{named:?}");
    let missing: Vec<&&str> = named.iter().filter(|name| !tests.contains(&format!("#[test]\nfn {name}("))).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}

/// What stands at the top of the repository.
const TOP: &[&str] = &["Cargo.toml", "src", "schemas", "benches", "tuning", "scripts", "tests"];

/// The packages that G8 names, and where each earns its place: a file or folder, and how the code there names it.
const PACKAGES: &[(&str, &str, &str)] = &[
    ("glommio", "src/drive/bridge.rs", "glommio::LocalExecutorBuilder"),
    ("io-uring", "src/drive/pump.rs", "io_uring::opcode"),
    ("flatbuffers", "src/wire/", "flatbuffers::FlatBufferBuilder"),
    ("simd-json", "src/admin/mod.rs", "simd_json::serde::from_slice"),
    ("ahash", "src/presence/edge/", "ahash::RandomState"),
    ("hdrhistogram", "src/metrics/recorder.rs", "hdrhistogram::Histogram"),
    ("core_affinity", "src/drive/pin.rs", "core_affinity::set_for_current"),
    ("mimalloc", "src/bin/fanal/main.rs", "mimalloc::MiMalloc"),
];

#[test]
fn g8_the_packages_and_folders_are_there_and_used_where_they_earn_their_place() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    TOP.iter().for_each(|name| assert!(top.join(name).exists(), "{name} is missing"));
    let manifest: toml::Table = toml::from_str(&std::fs::read_to_string(top.join("Cargo.toml")).unwrap()).unwrap();
    let dependencies = manifest["dependencies"].as_table().expect("a section");
    let code = sources(&["src"]);
    for (package, place, name) in PACKAGES {
        assert!(dependencies.contains_key(*package), "{package} is no dependency");
        let (base, item) = name.rsplit_once("::").expect("a path");
        let names = |source: &&Source| {
            let own_line = source.code.contains(name);
            let grouped = source.code.contains(&format!("{base}::{{")) && !words(&source.code, item).collect::<Vec<_>>().is_empty();
            source.path.starts_with(place) && (own_line || grouped)
        };
        assert!(code.iter().any(|source| names(&source)), "{package}: {name} isn't used in {place}");
    }
    let main = code.iter().find(|source| source.path == "src/bin/fanal/main.rs").expect("the binary");
    assert!(main.code.contains("#[global_allocator]"), "mimalloc is the allocator");
}

#[test]
fn unsafe_code_stands_only_in_ring_drive_and_generated_code() {
    assert_none(sources(&["src"]).iter().flat_map(unsafe_faults).collect());
}

#[test]
fn every_module_says_what_it_is_for() {
    let sources = sources(&["src", "tests", "benches"]);
    let silent = sources.iter().filter(|source| !source.is_generated() && !source.text.starts_with("//! "));
    assert_none(silent.map(|source| format!("{}: start the file with //! and what it's for", source.path)).collect());
}

#[test]
fn every_module_has_its_place_in_the_table() {
    let known = |name: &str| LAYERS.iter().any(|(layer, _)| *layer == name) || ["lib", "bin"].contains(&name);
    let homeless = sources(&["src"]).into_iter().filter(|source| !known(module(&source.path)));
    assert_none(homeless.map(|source| format!("{}: no such layer in LAYERS", source.path)).collect());
}

#[test]
fn each_kind_of_fault_is_found() {
    let source = |path, text| Source::new(path, text);
    let upward = "use crate::{base::id::UserId, drive::{Pump, Bell}};\nfn f() { crate::node::serve(); } // crate::sim";
    assert_eq!(layer_faults(&source("src/presence/x.rs", upward)).len(), 2);
    assert_eq!(
        layer_faults(&source("src/presence/x.rs", "use crate::wire::frame;\n#[cfg(test)]\nmod t { use crate::sim; }")).len(),
        0
    );
    assert_eq!(escape_faults(&source("src/wire/x.rs", "use super::super::drive;")).len(), 1);
    assert_eq!(escape_faults(&source("src/wire/x.rs", "use super::frame;")).len(), 0);
    assert_eq!(escape_faults(&source("src/wire/a/x.rs", "use super::super::super::drive::a;\nuse super::base;")).len(), 1);
    assert_eq!(world_faults(&source("src/base/x.rs", "use std::time::Instant;\nfn f() { std::fs::read(p); }")).len(), 2);
    assert_eq!(world_faults(&source("src/base/x.rs", "// Instant\nuse std::net::SocketAddr;")).len(), 0);
    assert_eq!(unsafe_faults(&source("src/base/x.rs", "fn f() { unsafe { g() } }")).len(), 1);
    assert!(is_pure("src/store/rows.rs") && !is_pure("src/store/redb.rs"));
}
