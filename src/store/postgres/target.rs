//! Where the database is, from its URL: what the client library is told, how the connection is made private, and what messages
//! call it.
//!
//! Lives on: the main thread, at start. Serves M3, C8. Invariants: no message holds the password; without TLS nothing leaves this
//! machine unless the URL says `sslmode=disable`.

use super::tls::{self, Trust};
use crate::store::dir::OpenError;
use rustls::ClientConfig;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// What a connection is told of who connects; `pg_stat_activity` shows it.
const APPLICATION: &str = "fanal";

/// A database that can be connected to.
#[derive(Clone)]
pub struct Target {
    pub(super) config: Config,
    pub(super) tls: Arc<ClientConfig>,
    /// What messages call it: the URL without password and options.
    pub place: String,
}

/// Whether this is the address of a database rather than a directory.
pub fn is_url(text: &str) -> bool {
    ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme))
}

impl Target {
    /// Reads `postgres://user:password@host:port/database?sslmode=...&sslrootcert=FILE`. A password that the URL does not have is
    /// taken from the environment (`PGPASSWORD`).
    pub fn parse(url: &str) -> Result<Target, OpenError> {
        let bad = |why: String| OpenError::Url { why };
        if !is_url(url) {
            return Err(bad("it does not begin with postgres://".into()));
        }
        let (url, mode, root) = without_tls_options(url).map_err(bad)?;
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| bad(words(&error)))?;
        if config.get_hosts().is_empty() {
            return Err(bad("it names no host".into()));
        }
        if config.get_password().is_none()
            && let Some(password) = std::env::var_os("PGPASSWORD")
        {
            config.password(password.into_encoded_bytes());
        }
        if config.get_application_name().is_none() {
            config.application_name(APPLICATION);
        }
        if config.get_hosts().len() > 1 && config.get_target_session_attrs() == TargetSessionAttrs::Any {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        let is_local = config.get_hosts().iter().all(is_local);
        let trust = match mode.as_deref() {
            Some("disable") => None,
            None if is_local => None,
            Some("require") => Some(root.map_or(Trust::Anybody, Trust::Roots)),
            Some("verify-full") => Some(Trust::Roots(root.ok_or_else(|| {
                bad("sslmode=verify-full needs sslrootcert=FILE, the certificates by one of which the server's is signed".into())
            })?)),
            Some(other) => return Err(bad(format!("sslmode={other} is not known: write disable, require or verify-full"))),
            None => {
                let why = "it has no sslmode, and the database is on another machine: write sslmode=verify-full&sslrootcert=FILE";
                return Err(bad(format!("{why}; or sslmode=disable, where the network itself is private")));
            }
        };
        config.ssl_mode(if trust.is_some() { SslMode::Require } else { SslMode::Disable });
        let place = place(&config);
        Ok(Target { tls: tls::config(trust.unwrap_or(Trust::Anybody)).map_err(bad)?, config, place })
    }
}

/// The URL without `sslmode` and `sslrootcert`, which the library knows in part only, and those two.
fn without_tls_options(url: &str) -> Result<(String, Option<String>, Option<PathBuf>), String> {
    let Some((base, options)) = url.split_once('?') else { return Ok((url.to_owned(), None, None)) };
    let (mut mode, mut root, mut others) = (None, None, Vec::new());
    for option in options.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("sslmode", value)) => mode = Some(value.to_owned()),
            Some(("sslrootcert", value)) => root = Some(PathBuf::from(unescaped(value)?)),
            _ => others.push(option),
        }
    }
    let url = if others.is_empty() { base.to_owned() } else { format!("{base}?{}", others.join("&")) };
    Ok((url, mode, root))
}

/// A part of a URL (RFC 3986 2.1).
fn unescaped(text: &str) -> Result<String, String> {
    let bad = || "sslrootcert is not written as URLs are: a % begins two hexadecimal digits".to_owned();
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(bad)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            let address: Option<std::net::IpAddr> = name.trim_matches(['[', ']']).parse().ok();
            name.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| address.is_loopback())
        }
    }
}

fn place(config: &Config) -> String {
    let user = config.get_user().map_or(String::new(), |user| format!("{user}@"));
    let port = |at: usize| config.get_ports().get(at).or(config.get_ports().first()).copied().unwrap_or(5432);
    let host = |(at, host): (usize, &Host)| match host {
        Host::Tcp(name) => format!("{name}:{}", port(at)),
        Host::Unix(path) => format!("{}:{}", path.display(), port(at)),
    };
    let hosts: Vec<String> = config.get_hosts().iter().enumerate().map(host).collect();
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("postgres://{user}{}/{database}", hosts.join(","))
}

/// What the library and the server say went wrong, in one line. The library's own words are the least of it.
pub(super) fn words(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let detail = db.detail().map_or(String::new(), |detail| format!(" ({detail})"));
        return format!("{}{detail} [{}]", db.message(), db.code().code());
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(url: &str) -> String {
        Target::parse(url).err().expect(url).to_string()
    }

    #[test]
    fn a_target_is_called_by_its_url_without_the_password() {
        let target = Target::parse("postgres://fanal:se%2Fcret@127.0.0.1:6543/presence?application_name=x").unwrap();
        assert_eq!(target.place, "postgres://fanal@127.0.0.1:6543/presence");
        assert_eq!(target.config.get_password(), Some("se/cret".as_bytes()));
        let socket = Target::parse("postgresql://fanal@%2Frun%2Fpostgresql/fanal").unwrap();
        assert_eq!(socket.place, "postgres://fanal@/run/postgresql:5432/fanal");
        let two = Target::parse("postgres://fanal@one,two:6000/fanal?sslmode=disable").unwrap();
        assert_eq!(two.config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    }

    #[test]
    fn another_machine_is_never_reached_without_tls_unless_that_is_written() {
        assert!(why("postgres://fanal:secret@db.example.org/fanal").contains("sslmode=verify-full"));
        let open = Target::parse("postgres://fanal:secret@db.example.org/fanal?sslmode=disable").unwrap();
        assert_eq!(open.config.get_ssl_mode(), SslMode::Disable);
        let private = Target::parse("postgres://fanal:secret@db.example.org/fanal?sslmode=require").unwrap();
        assert_eq!(private.config.get_ssl_mode(), SslMode::Require);
        assert!(why("postgres://fanal@db.example.org/fanal?sslmode=verify-full").contains("sslrootcert"));
        assert!(why("postgres://fanal@db/fanal?sslmode=verify-full&sslrootcert=%2Fno%20file").contains("/no file"));
        assert!(why("postgres://fanal@db/fanal?sslmode=prefer").contains("verify-full"));
    }

    #[test]
    fn no_message_about_a_bad_url_holds_the_password() {
        for url in [
            "postgres://fanal:hunter2@[::1/fanal",
            "postgres://fanal:hunter2@host:port/fanal?sslmode=disable",
            "postgres://fanal:hunter2@host/fanal?sslmode=disable&no=1",
            "postgres://fanal:hunter2@host/fanal",
            "mysql://fanal:hunter2@host/fanal",
            "postgres:///fanal?password=hunter2",
        ] {
            assert!(!why(url).contains("hunter2"), "{}", why(url));
        }
    }
}
