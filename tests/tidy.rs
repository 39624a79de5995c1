//! Text that stays readable: sizes of files, lines and functions; nothing left half done; a reason beside every unsafe block.

mod source;

use source::{Source, sources, words};

/// Lines of a file from which the test warns, and beyond which it fails.
const GOOD_LINES: usize = 500;
const MOST_LINES: usize = 600;
const MOST_COLUMNS: usize = 132;
const MOST_FUNCTION_LINES: usize = 70;

/// Marks of unfinished work, spelt in two parts so that this file doesn't carry them.
const UNFINISHED_WORDS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
const UNFINISHED_CODE: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore"];

fn written() -> Vec<Source> {
    let sources = sources(&["src", "tests", "benches", "fuzz/fuzz_targets"]);
    assert!(sources.len() > 10, "the source was not found");
    sources.into_iter().filter(|source| !source.is_generated()).collect()
}

fn wide_lines(source: &Source) -> Vec<String> {
    let wide = source.text.lines().enumerate().filter(|(_, line)| line.chars().count() > MOST_COLUMNS);
    wide.map(|(n, line)| format!("{}:{}: {} columns", source.path, n + 1, line.chars().count())).collect()
}

/// The name, first line and length in lines of every function with a body.
fn functions(source: &Source) -> Vec<(String, usize, usize)> {
    let code = &source.code;
    let body = |at: usize| {
        let open = at + code[at..].find(['{', ';']).filter(|&open| code[at + open..].starts_with('{'))?;
        let mut depth = 0usize;
        let close = code[open..].char_indices().find(|(_, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            depth == 0
        })?;
        let name = code[at + 2..].trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
        let first = source.line(at);
        (!name.is_empty()).then(|| (name.to_owned(), first, source.line(open + close.0) - first + 1))
    };
    words(code, "fn").filter_map(body).collect()
}

fn long_functions(source: &Source) -> Vec<String> {
    let long = functions(source).into_iter().filter(|(_, _, lines)| *lines > MOST_FUNCTION_LINES);
    long.map(|(name, line, lines)| format!("{}:{line}: fn {name} has {lines} lines", source.path)).collect()
}

fn unfinished(source: &Source) -> Vec<String> {
    let said = UNFINISHED_WORDS.iter().flat_map(|word| words(&source.text, word));
    let done = UNFINISHED_CODE.iter().flat_map(|word| source.code.match_indices(word).map(|(at, _)| at));
    let text = |at: usize| source.text[at..].lines().next().unwrap_or("").to_owned();
    said.chain(done).map(|at| format!("{}:{}: {}", source.path, source.line(at), text(at))).collect()
}

/// Unsafe blocks and implementations without a SAFETY comment right above their statement.
fn unexplained_unsafe(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.text.lines().collect();
    let code: Vec<&str> = source.code.lines().collect();
    let explained = |line: usize| {
        if lines[line].contains("SAFETY:") {
            return true;
        }
        for above in (0..line).rev() {
            let text = lines[above].trim();
            match text {
                _ if text.starts_with("//") && text.contains("SAFETY:") => return true,
                _ if text.starts_with("//") || text.starts_with("#[") => {}
                _ if code[above].trim_end().ends_with([';', '{', '}', ',']) || text.is_empty() => return false,
                _ => {}
            }
        }
        false
    };
    let needs_reason = |at: &usize| {
        let next = source.code[at + "unsafe".len()..].trim_start();
        next.starts_with('{') || next.starts_with("impl")
    };
    let uses = words(&source.code, "unsafe").filter(needs_reason).map(|at| source.line(at) - 1);
    uses.filter(|&line| !explained(line)).map(|line| format!("{}:{}: no SAFETY line", source.path, line + 1)).collect()
}

fn assert_none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn files_fit_into_a_head() {
    let sizes: Vec<_> = written().into_iter().map(|source| (source.text.lines().count(), source.path)).collect();
    for (lines, path) in sizes.iter().filter(|(lines, _)| *lines > GOOD_LINES) {
        println!("{path}: {lines} lines; split it before it grows past {MOST_LINES}");
    }
    assert_none(sizes.iter().filter(|(n, _)| *n > MOST_LINES).map(|(n, path)| format!("{path}: {n} lines")).collect());
}

#[test]
fn lines_fit_onto_a_screen() {
    assert_none(written().iter().flat_map(wide_lines).collect());
}

#[test]
fn functions_fit_onto_a_screen() {
    let sources = written();
    assert!(sources.iter().map(|source| functions(source).len()).sum::<usize>() > 50, "functions are not found");
    assert_none(sources.iter().flat_map(long_functions).collect());
}

#[test]
fn nothing_is_left_half_done() {
    assert_none(written().iter().flat_map(unfinished).collect());
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    assert_none(written().iter().flat_map(unexplained_unsafe).collect());
}

#[test]
fn each_kind_of_fault_is_found() {
    let source = |text: &str| Source::new("src/x.rs", text);
    assert_eq!(wide_lines(&source(&format!("{}\n{}", "é".repeat(132), "x".repeat(133)))), ["src/x.rs:2: 133 columns"]);
    let long = format!("fn f() {{{}}}\nfn g();\nfn h() {{ \"}}\" }}", "\n".repeat(70));
    assert_eq!(functions(&source(&long)), [("f".into(), 1, 71), ("h".into(), 73, 1)]);
    assert_eq!(long_functions(&source(&long)).len(), 1);
    assert_eq!(unfinished(&source(&format!("// {} later\nfn f() {{ todo!() }}\n\"todo!\"", UNFINISHED_WORDS[0]))).len(), 2);
    let with = "// SAFETY: sound\n// indeed.\nlet a =\n    unsafe { b() };\nunsafe { c() } // SAFETY: too\nunsafe fn d() {}";
    assert_eq!(unexplained_unsafe(&source(with)), [""; 0]);
    assert_eq!(unexplained_unsafe(&source("// SAFETY: no\nx();\nunsafe { c() }\nunsafe impl Send for X {}")).len(), 2);
}
