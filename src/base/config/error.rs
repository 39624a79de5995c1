//! What is wrong with a configuration, for the person who wrote it: place, key, reason, fix.

use std::fmt;
use std::ops::Range;

/// A value that can't be used, wherever it came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// `section.key`.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
}

impl Fault {
    pub fn new(key: impl Into<String>, problem: impl Into<String>, fix: impl Into<String>) -> Fault {
        Fault { key: key.into(), problem: problem.into(), fix: fix.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.key, self.problem, self.fix)
    }
}

impl std::error::Error for Fault {}

/// A fault in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    pub file: String,
    /// Counted from 1.
    pub line: u32,
    /// Counted from 1, in characters.
    pub column: u32,
    /// The bytes of the file's text that are wrong.
    pub span: Range<usize>,
    pub fault: Fault,
}

impl ConfigError {
    pub(super) fn new(file: &str, text: &str, span: Range<usize>, fault: Fault) -> ConfigError {
        let start = text.floor_char_boundary(span.start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        ConfigError {
            file: file.into(),
            line: before.matches('\n').count() as u32 + 1,
            column: before[line_start..].chars().count() as u32 + 1,
            span: start..text.ceil_char_boundary(span.end).max(start),
            fault,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.fault)
    }
}

impl std::error::Error for ConfigError {}
