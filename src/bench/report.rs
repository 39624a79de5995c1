//! What a benchmark found: a table for people, one JSON object for programs.
//!
//! Serves G6. Invariant: every report says on what machine, from which commit and by which command it came, so that it can be
//! made again.

use serde::Serialize;
use std::fmt::Write as _;
use std::fs;

/// What every report has for programs, whatever its kind; `null` where it means nothing.
pub const KEYS: [&str; 10] = [
    "updates_per_s",
    "deliveries_per_s",
    "lost",
    "p50_us",
    "p99_us",
    "p999_us",
    "server_cpu_ns_per_delivery",
    "floor_cpu_ns_per_delivery",
    "floor_ratio",
    "bytes_per_session",
];
/// Options whose values are nobody's business.
const SECRETS: [&str; 3] = ["--token-key", "--trunk-key", "--admin-token"];

/// Where the figures come from.
#[derive(Clone, Debug, Serialize)]
pub struct Origin {
    pub command: String,
    /// The commit of the source that the program was built in, when it stands in its repository.
    pub commit: String,
    pub kernel: String,
    pub processor: String,
    pub processors: usize,
    pub memory_bytes: u64,
    /// Seconds since 1970.
    pub at: u64,
}

impl Origin {
    /// This machine, now.
    pub fn here() -> Origin {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kilobytes = value(&meminfo, "MemTotal").and_then(|value| value.strip_suffix(" kB")?.parse::<u64>().ok());
        let arguments = without_secrets(std::env::args().skip(1));
        Origin {
            command: format!("fanal {}", arguments.join(" ")),
            commit: commit().unwrap_or_else(|| "unknown".into()),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            processor: value(&cpuinfo, "model name").unwrap_or_default(),
            processors: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            memory_bytes: kilobytes.unwrap_or(0) << 10,
            at: crate::drive::clock::wall().0 / 1000,
        }
    }
}

fn without_secrets(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut secret_next = false;
    let hide = |argument: String| {
        let option = argument.split('=').next().filter(|option| SECRETS.contains(option)).map(str::to_owned);
        let hidden = std::mem::replace(&mut secret_next, option.as_ref().is_some_and(|option| *option == argument));
        match option {
            Some(option) if option != argument => format!("{option}=..."),
            _ if hidden => "...".to_owned(),
            _ => argument,
        }
    };
    arguments.map(hide).collect()
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let source = std::env::current_exe().ok()?;
        let output = std::process::Command::new("git").arg("-C").arg(source.parent()?).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    Some(if changed { format!("{commit} with changes") } else { commit })
}

/// One figure, in the order of the report.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    Count(u64),
    Number(f64),
}

/// A finished benchmark.
pub struct Report {
    pub kind: &'static str,
    origin: Origin,
    figures: Vec<(&'static str, Value, &'static str)>,
}

impl Report {
    pub fn new(kind: &'static str) -> Report {
        Report { kind, origin: Origin::here(), figures: Vec::new() }
    }

    /// Adds a count.
    pub fn count(&mut self, name: &'static str, count: impl Into<u64>, about: &'static str) {
        self.figures.push((name, Value::Count(count.into()), about));
    }

    /// Adds a measured number; three decimals are kept.
    pub fn number(&mut self, name: &'static str, number: f64, about: &'static str) {
        self.figures.push((name, Value::Number((number * 1000.0).round() / 1000.0), about));
    }

    /// A figure by its name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.figures.iter().find(|(other, _, _)| *other == name).map(|(_, value, _)| value)
    }

    /// For people.
    pub fn table(&self) -> String {
        let shown: Vec<(&str, String, &str)> =
            self.figures.iter().map(|(name, value, about)| (*name, value.shown(), *about)).collect();
        let names = shown.iter().map(|(name, _, _)| name.len()).max().unwrap_or(0);
        let values = shown.iter().map(|(_, value, _)| value.len()).max().unwrap_or(0);
        let Origin { commit, kernel, processor, processors, .. } = &self.origin;
        let mut table = format!("{} on {processors} x {processor}, Linux {kernel}, commit {commit}\n", self.kind);
        for (name, value, about) in shown {
            let _ = writeln!(table, "  {name:names$}  {value:>values$}  {about}");
        }
        table
    }

    /// For programs: one object on one line.
    pub fn json(&self) -> String {
        let mut fields = vec![("kind", json(&self.kind))];
        fields.extend(self.figures.iter().map(|(name, value, _)| match value {
            Value::Count(count) => (*name, json(count)),
            Value::Number(number) => (*name, if number.is_finite() { json(number) } else { "null".into() }),
        }));
        fields.extend(KEYS.iter().filter(|key| self.get(key).is_none()).map(|&key| (key, "null".into())));
        fields.push(("origin", json(&self.origin)));
        let fields: Vec<String> = fields.into_iter().map(|(name, value)| format!("{}:{value}", json(&name))).collect();
        format!("{{{}}}", fields.join(","))
    }
}

fn json<T: Serialize>(value: &T) -> String {
    simd_json::to_string(value).expect("plain values can be written as JSON")
}

impl Value {
    fn shown(&self) -> String {
        match self {
            Value::Count(count) => grouped(*count),
            Value::Number(number) if number.abs() >= 1000.0 => grouped(number.round() as u64),
            Value::Number(number) => format!("{number}"),
        }
    }
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The middle one of some figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        count if count.is_multiple_of(2) => (figures[count / 2 - 1] + figures[count / 2]) / 2.0,
        count => figures[count / 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_read_back_what_people_see() {
        let mut report = Report::new("fanout");
        report.count("lost", 0u64, "");
        report.number("floor_ratio", 0.87654, "");
        let mut text = report.json().into_bytes();
        let read: simd_json::OwnedValue = simd_json::to_owned_value(&mut text).unwrap();
        assert_eq!(read["lost"], 0u64);
        assert_eq!(read["floor_ratio"], 0.877);
        assert!(report.table().contains("0.877") && report.table().contains("floor_ratio"));
    }

    #[test]
    fn a_report_names_every_key_and_no_secret() {
        let text = Report::new("idle").json();
        assert!(KEYS.iter().all(|key| text.contains(&format!("\"{key}\":null"))), "{text}");
        let said = ["bench", "--token-key", "tk", "--admin-token=at", "--users", "5"].map(str::to_owned);
        let kept = ["bench", "--token-key", "...", "--admin-token=...", "--users", "5"];
        assert_eq!(without_secrets(said.into_iter()), kept);
    }

    #[test]
    fn large_numbers_are_grouped_and_medians_are_in_the_middle() {
        assert_eq!((grouped(0), grouped(1_234_567)), ("0".into(), "1,234,567".into()));
        assert_eq!((median(vec![3.0, 1.0, 2.0]), median(vec![1.0, 4.0])), (2.0, 2.5));
    }
}
