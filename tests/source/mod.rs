//! The project's own source text, for the tests that check it.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};

/// One Rust file.
pub struct Source {
    /// From the top of the project: `src/base/id.rs`.
    pub path: String,
    pub text: String,
    /// The same text, as long and with the same lines, with everything in comments and literals blanked.
    pub code: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into(), code: blank(text) }
    }

    pub fn is_generated(&self) -> bool {
        self.path.contains("/generated/")
    }

    /// The code in front of the file's own tests.
    pub fn shipped(&self) -> &str {
        let tests = self.code.match_indices("#[cfg(").find(|(at, marker)| {
            let (condition, next) = self.code[at + marker.len()..].split_once(']').unwrap_or_default();
            let line = next.trim_start().lines().next().unwrap_or("");
            words(condition, "test").next().is_some() && line.starts_with("mod ") && !line.trim_end().ends_with(';')
        });
        &self.code[..tests.map_or(self.code.len(), |(at, _)| at)]
    }

    /// The line of this byte, from 1.
    pub fn line(&self, at: usize) -> usize {
        self.text[..at].matches('\n').count() + 1
    }
}

/// Every Rust file below these folders, in a defined order.
pub fn sources(folders: &[&str]) -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in folders {
        walk(&top.join(folder), &mut paths);
    }
    paths.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Source::new(&path.strip_prefix(top).expect("below the top").to_string_lossy(), &text)
    };
    paths.iter().map(read).collect()
}

fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            walk(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Where `word` stands in the code as a word of its own.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        !code[..at].chars().next_back().is_some_and(is_name) && !code[at + word.len()..].chars().next().is_some_and(is_name)
    })
}

/// Blanks comments, strings and characters; line ends stay.
pub fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let skipped = comment_length(rest).or_else(|| literal_length(rest, &code)).unwrap_or(0);
        let (blanked, after) = rest.split_at(skipped);
        code.extend(blanked.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        let mut chars = after.chars();
        if skipped == 0 {
            code.extend(chars.next());
        }
        rest = chars.as_str();
    }
    code
}

fn comment_length(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let mut depth = 0;
    for at in 0..text.len() {
        match text.as_bytes().get(at..at + 2) {
            Some(b"/*") => depth += 1,
            Some(b"*/") => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return Some(at + 2);
        }
    }
    Some(text.len())
}

/// The length of the string or character that starts here.
fn literal_length(text: &str, before: &str) -> Option<usize> {
    let follows_name = before.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
    if !follows_name && text.starts_with(['r', 'b', 'c']) {
        let hashes_at = text.find(|c| !"rbc".contains(c)).filter(|&at| at <= 2)?;
        let hashes = text[hashes_at..].bytes().take_while(|&byte| byte == b'#').count();
        if text[..hashes_at].contains('r') && text[hashes_at + hashes..].starts_with('"') {
            let start = hashes_at + hashes + 1;
            let end = format!("\"{}", "#".repeat(hashes));
            return Some(text[start..].find(&end).map_or(text.len(), |at| start + at + end.len()));
        }
        return None;
    }
    if text.starts_with('"') {
        return Some(until_quote(text, '"'));
    }
    let mut chars = text.strip_prefix('\'')?.chars();
    let is_char = match chars.next()? {
        '\\' => true,
        _ => chars.next() == Some('\''),
    };
    is_char.then(|| until_quote(text, '\''))
}

fn until_quote(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

#[test]
fn comments_and_literals_are_blanked_and_nothing_else_is() {
    let rows = [
        ("a // unsafe\nb", "a          \nb"),
        ("/* x /* y */ z */ k", "                  k"),
        ("f(\"a\\\"unsafe\", b)", "f(           , b)"),
        ("r#\"q\"uo\"# r", "          r"),
        ("b\"x\" br\"y\"", "b        "),
        ("'x' '\\'' 'static &'a b", "         'static &'a b"),
        ("for b in c {}", "for b in c {}"),
    ];
    for (text, code) in rows {
        assert_eq!(blank(text).trim_end(), code.trim_end(), "{text}");
        assert_eq!(blank(text).len(), text.len());
    }
    assert_eq!(words("unsafe_x unsafe xunsafe (unsafe)", "unsafe").collect::<Vec<_>>(), [9, 25]);
}
