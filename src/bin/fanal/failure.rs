//! Why a command failed, for the person who gave it.

use fanal::base::config::{ConfigError, Fault};
use miette::{GraphicalReportHandler, LabeledSpan, MietteDiagnostic, NamedSource, Report};
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// A line that names the thing, the reason and the fix; for a configuration file also the place in it.
pub enum Failure {
    Line(String),
    Config { error: Box<ConfigError>, text: String },
}

impl Failure {
    pub fn line(line: impl Display) -> Failure {
        Failure::Line(line.to_string())
    }

    /// Says it and gives the exit status.
    pub fn report(self) -> ExitCode {
        let shown = match &self {
            Failure::Line(line) => format!("error: {line}\n"),
            Failure::Config { error, text } => format!("error: {error}\n{}", excerpt(error, text)),
        };
        // Nobody is left to tell when even stderr is gone.
        let _ = std::io::stderr().write_all(shown.as_bytes());
        ExitCode::FAILURE
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure::line(fault)
    }
}

/// The lines of the file around what is wrong, marked.
fn excerpt(error: &ConfigError, text: &str) -> String {
    let mark = LabeledSpan::new_with_span(Some(error.fault.fix.clone()), error.span.clone());
    let diagnostic = MietteDiagnostic::new(error.fault.problem.clone()).with_label(mark);
    let report = Report::new(diagnostic).with_source_code(NamedSource::new(&error.file, masked(text)));
    let theme = match std::io::stderr().is_terminal() {
        true => miette::GraphicalTheme::unicode(),
        false => miette::GraphicalTheme::unicode_nocolor(),
    };
    let mut shown = String::new();
    match GraphicalReportHandler::new_themed(theme).render_report(&mut shown, report.as_ref()) {
        Ok(()) => shown,
        Err(_) => String::new(),
    }
}

/// The file without the passwords of URLs, each place as long as before.
fn masked(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let secret = line.split_once("://").and_then(|(scheme, rest)| {
            let (login, _) = rest.rsplit_once('@')?;
            let (user, password) = login.split_once(':')?;
            let start = scheme.len() + 3 + user.len() + 1;
            Some(start..start + password.len())
        });
        match secret {
            Some(secret) => {
                masked += &line[..secret.start];
                masked.extend(std::iter::repeat_n('*', secret.len()));
                masked += &line[secret.end..];
            }
            None => masked += line,
        }
    }
    masked
}
