//! From text to a sound `Config`: known keys, each value's shape, then what the values mean together.

use super::cluster::{self, Peer};
use super::keys::{self, KEYS, Key, SECTIONS, Shape};
use super::{Config, ConfigError, Cores, Endpoint, Fault, Listen, Secret, StoreKind};
use super::{directory, link};
use crate::base::jid::Bare;
use crate::base::limits::{LEAST_STANZA_BYTES, Limits, STANZA_FRAME_BYTES};
use crate::base::network::Network;
use std::net::{Ipv6Addr, SocketAddr};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(super) fn read(file: &str, text: &str, fits: impl Fn(&Config) -> Result<(), Fault>) -> Result<Config, ConfigError> {
    let at = |span, fault| ConfigError::new(file, text, span, fault);
    let tree = DeTable::parse(text).map_err(|error| syntax_error(file, text, &error))?;
    for (section, value) in tree.get_ref() {
        let Some(table) = value.get_ref().as_table().filter(|_| is_section(section.get_ref())) else {
            return Err(at(section.span(), misplaced(section.get_ref())));
        };
        for (name, value) in table {
            let (name, span) = (name.get_ref(), name.span());
            let key = keys::find(section.get_ref(), name).ok_or_else(|| at(span, unknown(section.get_ref(), name)))?;
            check_shape(key, value).map_err(|fault| at(value.span(), fault))?;
        }
    }
    let config: Config = toml::from_str(text).map_err(|error| syntax_error(file, text, &error))?;
    together(&config).and_then(|()| fits(&config)).map_err(|fault| at(span_of(tree.get_ref(), &fault.key), fault))?;
    Ok(config)
}

fn is_section(name: &str) -> bool {
    SECTIONS.iter().any(|(section, _)| *section == name)
}

/// What TOML itself can't read.
fn syntax_error(file: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let span = error.span().unwrap_or(0..0);
    let reason = error.message().trim().replace('\n', ", ");
    let fault = Fault::new(key_near(text, span.start), reason, "correct this line; see `fanal config` for how each key is written");
    ConfigError::new(file, text, span, fault)
}

/// The key on the line of this byte as far as it can be told; never a value, which may be secret.
fn key_near(text: &str, at: usize) -> String {
    let until = &text[..text.floor_char_boundary(at)];
    let line_start = until.rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next().unwrap_or("");
    let header = text[..line_start].lines().rev().find_map(|line| line.trim().strip_prefix('[')?.split(']').next());
    let is_name = |key: &&str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let key = line.split_once('=').map(|(key, _)| key.trim()).filter(is_name);
    match (header, key) {
        (Some(section), Some(key)) => format!("{section}.{key}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "the file".to_owned(),
    }
}

/// A name at the top of the file that is no section.
fn misplaced(name: &str) -> Fault {
    if is_section(name) {
        return Fault::new(name, "this is a section, not a value", format!("write [{name}] on its own line and its keys below"));
    }
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return Fault::new(name, "this key stands outside its section", format!("move it below [{}]", key.section));
    }
    let sections: Vec<&str> = SECTIONS.iter().map(|(section, _)| *section).collect();
    Fault::new(name, "there is no such section", nearest_or_all(name, &sections))
}

fn unknown(section: &str, name: &str) -> Fault {
    let fix = match KEYS.iter().find(|key| key.name == name) {
        Some(key) => format!("move it below [{}]", key.section),
        None => {
            let names: Vec<&str> = KEYS.iter().filter(|key| key.section == section).map(|key| key.name).collect();
            nearest_or_all(name, &names)
        }
    };
    Fault::new(format!("{section}.{name}"), format!("there is no such key in [{section}]"), fix)
}

/// "did you mean ...", or all there are when none is like it.
fn nearest_or_all(name: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|k| (distance(name, k), k)).min();
    match nearest {
        Some((apart, nearest)) if apart <= 2.max(name.len() / 3) => format!("did you mean {nearest}?"),
        _ => format!("known are {}", known.join(", ")),
    }
}

/// How many letters must be changed, added or taken away (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn check_shape(key: &Key, value: &Spanned<DeValue<'_>>) -> Result<(), Fault> {
    let value = value.get_ref();
    let problem = match (key.shape, value) {
        (Shape::Number { min, max }, DeValue::Integer(number)) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(n) if (i128::from(min)..=i128::from(max)).contains(&n) => None,
            _ => Some(format!("{} is out of range", number.as_str())),
        },
        (Shape::Flag, DeValue::Boolean(_)) | (Shape::Text, DeValue::String(_)) => None,
        (Shape::Address, DeValue::String(text)) => {
            text.parse::<SocketAddr>().is_err().then(|| format!("\"{text}\" is not an address with a port"))
        }
        (Shape::OneOf(words), DeValue::String(text)) => {
            (!words.contains(&text.as_ref())).then(|| format!("\"{text}\" is none of the choices"))
        }
        (Shape::Cores, DeValue::String(text)) => (text != "all").then(|| format!("\"{text}\" names no processors")),
        (Shape::Cores, DeValue::Array(list)) => {
            let number = |item: &DeValue| item.as_integer().is_some_and(|n| u16::from_str_radix(n.as_str(), n.radix()).is_ok());
            (!list.iter().all(|item| number(item.get_ref()))).then(|| "not every entry is a processor number".into())
        }
        (Shape::Secret, DeValue::String(text)) => too_short(text),
        (Shape::Texts, DeValue::Array(list)) => {
            let all_texts = list.iter().all(|item| item.get_ref().as_str().is_some());
            (!all_texts).then(|| "not every entry is a text".into())
        }
        (Shape::Networks, DeValue::Array(list)) => {
            let is_network = |item: &str| Network::parse(item).is_some();
            let all_networks = list.iter().all(|item| item.get_ref().as_str().is_some_and(is_network));
            (!all_networks).then(|| "not every entry is an address or a network".into())
        }
        (Shape::Nodes, DeValue::Array(list)) => {
            let is_node = |item: &str| Peer::parse(item).is_some();
            let all_nodes = list.iter().all(|item| item.get_ref().as_str().is_some_and(is_node));
            (!all_nodes).then(|| "not every entry is a node's number and address".into())
        }
        (Shape::Secrets, DeValue::Array(list)) => {
            list.iter().find_map(|item| item.get_ref().as_str().map_or(Some("not every entry is a text".into()), too_short))
        }
        (_, other) => Some(format!("there is a TOML {} here", other.type_str())),
    };
    let fault = |problem| Fault::new(format!("{}.{}", key.section, key.name), problem, format!("write {}", key.shape.expected()));
    problem.map_or(Ok(()), |problem| Err(fault(problem)))
}

fn too_short(secret: &str) -> Option<String> {
    Secret::new(secret).is_none().then(|| format!("a key of {} characters can be guessed", secret.len()))
}

/// Where `section.key` is written, or its section, or the start of the file.
fn span_of(tree: &DeTable<'_>, key: &str) -> Range<usize> {
    let (section, name) = key.split_once('.').unwrap_or((key, ""));
    let Some((head, table)) = tree.get_key_value(section) else { return 0..0 };
    let value = table.get_ref().as_table().and_then(|table| table.get(name));
    value.map_or(head.span(), Spanned::span)
}

/// What no single key can tell.
pub(super) fn together(config: &Config) -> Result<(), Fault> {
    check_node(config)?;
    check_listen(config)?;
    check_tls(config)?;
    check_http(config)?;
    cluster::check(config)?;
    directory::check(config)?;
    link::check(config)?;
    check_store(config)?;
    check_limits(config)
}

fn check_node(config: &Config) -> Result<(), Fault> {
    let domain = &config.node.domain;
    let prepared = Bare::new(&format!("user@{domain}"));
    if prepared.as_ref().is_none_or(|jid| jid.domain() != domain) {
        let fix = match prepared {
            Some(jid) => format!("write it as \"{}\"", jid.domain()),
            None => "write a host name, like \"example.org\"".into(),
        };
        return Err(Fault::new("node.domain", format!("\"{domain}\" is not a domain in its prepared form"), fix));
    }
    if config.node.data.as_os_str().is_empty() {
        return Err(Fault::new("node.data", "the path is empty", "write a directory, like \"fanal-data\""));
    }
    let Cores::These(cores) = &config.node.cores else { return Ok(()) };
    if cores.is_empty() {
        return Err(Fault::new("node.cores", "the list is empty", "name at least one processor, or write \"all\""));
    }
    match cores.iter().enumerate().find(|(at, core)| cores[..*at].contains(core)) {
        Some((_, core)) => Err(Fault::new("node.cores", format!("processor {core} stands there twice"), "name each once")),
        None => Ok(()),
    }
}

fn check_listen(config: &Config) -> Result<(), Fault> {
    let listen = &config.listen;
    let doors = [
        ("listen.native", Some(listen.native)),
        ("listen.xmpp", listen.xmpp),
        ("listen.xmpps", listen.xmpps),
        ("listen.ws", listen.ws),
        ("listen.admin", Some(listen.admin)),
    ];
    let opened = doors.iter().filter_map(|&(key, address)| Some((key, address.filter(|address| address.port() != 0)?)));
    for (at, (key, address)) in opened.clone().enumerate() {
        if let Some((other, _)) = opened.clone().take(at).find(|&(_, taken)| taken == address) {
            return Err(Fault::new(key, format!("{address} is {other}'s address too"), "give each its own port"));
        }
    }
    if !listen.admin.ip().is_loopback() && listen.admin_token.is_none() {
        let problem = format!("other machines can reach {} and anybody could manage the users", listen.admin);
        return Err(Fault::new("listen.admin", problem, "set listen.admin_token, or listen on 127.0.0.1"));
    }
    check_location(listen)?;
    check_ws(listen)?;
    let keys = config.login.token_keys.iter().chain(&config.login.trunk_keys);
    if keys.clone().any(|key| Secret::new(key.reveal()).is_none()) {
        return Err(Fault::new("login", "a key is too short", format!("write {}", Shape::Secrets.expected())));
    }
    let shared = config.login.token_keys.iter().any(|key| config.login.trunk_keys.contains(key));
    match shared {
        true => Err(Fault::new("login.trunk_keys", "a key is in login.token_keys too", "use other keys for trunks than for users")),
        false => Ok(()),
    }
}

/// What no browser would ever send, or no client could follow, is a mistake.
fn check_ws(listen: &Listen) -> Result<(), Fault> {
    let behind = |url: &str, schemes: [&str; 2]| schemes.iter().find_map(|scheme| url.strip_prefix(scheme)).map(str::to_owned);
    let is_host = |rest: String| !rest.is_empty() && !rest.contains(['/', '?', '#', '@', ' ']);
    let is_origin = |origin: &&String| *origin == "*" || behind(origin, ["https://", "http://"]).is_some_and(is_host);
    if let Some(origin) = listen.ws_origins.iter().find(|origin| !is_origin(origin)) {
        let problem = format!("\"{origin}\" is no origin as browsers send it");
        let fix = "write scheme and host, and a port if it isn't the usual one: \"https://example.org\"; or \"*\"";
        return Err(Fault::new("listen.ws_origins", problem, fix));
    }
    match &listen.ws_url {
        Some(url) if !behind(url, ["wss://", "ws://"]).is_some_and(is_host) => {
            let problem = format!("\"{url}\" is not what a WebSocket's address begins with");
            Err(Fault::new("listen.ws_url", problem, "write scheme and host, without a path: \"wss://example.org\""))
        }
        _ => Ok(()),
    }
}

/// RFC 6120 4.9.3.19: a name or an address, that of IPv6 in brackets, and a port.
fn check_location(listen: &Listen) -> Result<(), Fault> {
    let is_location = |location: &str| {
        let (host, port) = location.rsplit_once(':')?;
        let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.')),
        };
        (is_host && port.parse::<u16>().is_ok_and(|port| port > 0)).then_some(())
    };
    match &listen.xmpp_location {
        Some(location) if is_location(location).is_none() => {
            let problem = format!("\"{location}\" is not where a client can connect to");
            Err(Fault::new("listen.xmpp_location", problem, "write host and port: \"node1.example.org:5222\""))
        }
        Some(_) if listen.xmpp.is_none() => {
            Err(Fault::new("listen.xmpp_location", "that door is closed", "open it with listen.xmpp"))
        }
        _ => Ok(()),
    }
}

fn check_tls(config: &Config) -> Result<(), Fault> {
    match (&config.tls.certificate, &config.tls.key) {
        (Some(_), None) => Err(Fault::new("tls.certificate", "there is no tls.key to it", "name the file with its private key")),
        (None, Some(_)) => Err(Fault::new("tls.key", "there is no tls.certificate to it", "name the file with its certificate")),
        _ => Ok(()),
    }
}

fn check_http(config: &Config) -> Result<(), Fault> {
    let login = &config.login;
    let Some(url) = &login.http else {
        return match &login.http_ca {
            Some(_) => Err(Fault::new("login.http_ca", "there is no login.http to it", "name the service that is asked")),
            None => Ok(()),
        };
    };
    let endpoint =
        Endpoint::parse(url).map_err(|why| Fault::new("login.http", why, "write it like \"http://127.0.0.1:9000/check\""))?;
    if endpoint.is_private != login.http_ca.is_some() {
        return Err(match endpoint.is_private {
            true => Fault::new("login.http", "https needs to know whom to trust", "set login.http_ca, or use http on loopback"),
            false => Fault::new("login.http_ca", "login.http is not https", "take it out, or write https"),
        });
    }
    match login.open_registration {
        true => {
            let problem = "somebody could register the name of a user whom login.http knows";
            Err(Fault::new("login.open_registration", problem, "let either people make accounts here, or that service have them"))
        }
        false => Ok(()),
    }
}

/// The URL itself is not looked at here: whoever connects says what is wrong with it.
fn check_store(config: &Config) -> Result<(), Fault> {
    let store = &config.store;
    if store.kind == StoreKind::Postgres && store.url.is_none() {
        let fix = "write where the database is, like url = \"postgres://fanal@127.0.0.1/fanal\"";
        return Err(Fault::new("store.kind", "there is no store.url to it", fix));
    }
    Ok(())
}

/// The first of each pair may be at most the second.
fn check_limits(config: &Config) -> Result<(), Fault> {
    let (limits, listen) = (&config.limits, &config.listen);
    let speaks_xmpp = listen.xmpp.or(listen.xmpps).or(listen.ws).is_some();
    let least = LEAST_STANZA_BYTES + STANZA_FRAME_BYTES;
    if speaks_xmpp && limits.frame_bytes < least {
        let problem = format!("{} bytes are too few for the stanzas that XMPP clients may send", limits.frame_bytes);
        return Err(Fault::new("limits.frame_bytes", problem, format!("write {least} or more")));
    }
    let pairs = [
        ("frame_bytes", limits.frame_bytes, "high_water_bytes", limits.high_water_bytes, "or one frame makes a client slow"),
        ("piece_bytes", limits.piece_bytes, "high_water_bytes", limits.high_water_bytes, "or one piece makes a client slow"),
        ("frame_bytes", limits.frame_bytes, "ring_batch_bytes", limits.ring_batch_bytes, "or a frame fits into no batch"),
        ("high_water_bytes", limits.high_water_bytes, "backlog_bytes", limits.backlog_bytes, "or clients end before they are slow"),
        (
            "trunk_high_water_bytes",
            limits.trunk_high_water_bytes,
            "trunk_backlog_bytes",
            limits.trunk_backlog_bytes,
            "or trunks end before they are slow",
        ),
        ("high_water_bytes", limits.high_water_bytes, "trunk_high_water_bytes", limits.trunk_high_water_bytes, "it carries many"),
    ];
    for (low, low_value, high, high_value, why) in pairs.into_iter().chain(rates(limits)) {
        if low_value > high_value {
            let problem = format!("{low_value} is more than {high} = {high_value}");
            let fix = format!("make {low} at most {high}, {why}");
            return Err(Fault::new(format!("limits.{low}"), problem, fix));
        }
    }
    Ok(())
}

/// Each rate and its burst.
fn rates(limits: &Limits) -> [(&'static str, u32, &'static str, u32, &'static str); 6] {
    macro_rules! rate {
        ($rate:ident, $burst:ident) => {
            (stringify!($rate), limits.$rate, stringify!($burst), limits.$burst, "or the rate can't be reached")
        };
    }
    [
        rate!(bytes_per_second, bytes_burst),
        rate!(frames_per_second, frames_burst),
        rate!(user_bytes_per_second, user_bytes_burst),
        rate!(user_frames_per_second, user_frames_burst),
        rate!(address_bytes_per_second, address_bytes_burst),
        rate!(address_frames_per_second, address_frames_burst),
    ]
}
