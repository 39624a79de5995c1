//! The configuration file: every key is documented, every default is sound, every mistake names its place and its fix.

use fanal::base::config::cluster::Peer;
use fanal::base::config::keys::{KEYS, SECTIONS, Shape};
use fanal::base::config::{Config, ConfigError, Cores, DatabaseUrl, Secret, StoreKind, WAITING};
use fanal::base::reason::Reason;
use fanal::link::classify::Matter;
use fanal::metrics::fields::{Counters, Gauges};
use proptest::prelude::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn error(text: &str) -> ConfigError {
    Config::parse("fanal.toml", text).expect_err(text)
}

/// The configuration with every key written, so that each field can be seen.
fn full() -> Config {
    let mut config = Config::default();
    config.listen.admin_token = Secret::new(KEY);
    config.tls.certificate = Some("fullchain.pem".into());
    config.tls.key = Some("privkey.pem".into());
    config.metrics.interval_log = Some("fanal.hlog".into());
    let open = |port| Some(std::net::SocketAddr::from(([0, 0, 0, 0], port)));
    config.listen.ws_url = Some("wss://example.org".into());
    config.listen.xmpp_location = Some("node1.example.org:5222".into());
    (config.link.listen, config.link.address) = ("0.0.0.0:7402".parse().ok(), "127.0.0.1:7402".parse().ok());
    let link = &mut config.link;
    (link.ca, link.certificate, link.key) = (Some("ca.pem".into()), Some("node.pem".into()), Some("node.key".into()));
    config.link.dictionary = Some("presence.dictionary".into());
    let url = "postgres://fanal:...@db.example.org/fanal?sslmode=verify-full&sslrootcert=ca.pem";
    config.store.url = Some(DatabaseUrl(url.into()));
    config.login.http = Some("https://login.example.org/check".into());
    config.login.http_ca = Some("/etc/ssl/certs/ca-certificates.crt".into());
    (config.listen.xmpp, config.listen.xmpps, config.listen.ws) = (open(5222), open(5223), open(7480));
    (config.cluster.number, config.cluster.node) = (Some(1), Some(1));
    config.cluster.nodes.extend(Peer::parse("1=127.0.0.1:7402"));
    config.cluster.etcd_ca = Some("etcd-ca.pem".into());
    config.cluster.etcd_certificate = Some("etcd-client.pem".into());
    config.cluster.etcd_key = Some("etcd-client.key".into());
    config.directory.cluster = Some(2);
    config.directory.at.extend(Peer::parse("1=127.0.0.1:7412"));
    config
}

#[test]
fn an_empty_file_is_the_defaults_and_they_are_sound_and_on_loopback() {
    let config = Config::parse("fanal.toml", "").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.check(), Ok(()));
    assert!(config.listen.native.ip().is_loopback() && config.listen.admin.ip().is_loopback());
    assert_eq!((config.node.domain.as_str(), config.login.plain, config.store.kind), ("localhost", false, StoreKind::Redb));
}

#[test]
fn every_field_is_documented_and_every_documented_key_is_a_field() {
    let table = toml::Table::try_from(full()).unwrap();
    let fields = table.iter().flat_map(|(section, keys)| keys.as_table().unwrap().keys().map(move |k| format!("{section}.{k}")));
    let mut fields: Vec<String> = fields.collect();
    let mut documented: Vec<String> = KEYS.iter().map(|key| format!("{}.{}", key.section, key.name)).collect();
    fields.sort();
    documented.sort();
    assert_eq!(documented, fields);
    for key in KEYS {
        assert!(SECTIONS.iter().any(|(section, _)| *section == key.section), "{}", key.section);
        assert!(key.doc.ends_with('.'), "{}: {}", key.name, key.doc);
    }
}

#[test]
fn every_limit_says_what_happens_at_it_and_where_that_is_counted() {
    let fields = Counters::FIELDS.iter().chain(Gauges::FIELDS).map(|field| field.name);
    let counted: Vec<&str> = Reason::ALL.iter().map(|reason| reason.metric()).chain(fields).collect();
    // Who is exempt is no limit.
    for key in KEYS.iter().filter(|key| key.section == "limits" && key.name != "exempt") {
        let quoted: Vec<&str> = key.doc.split('\'').skip(1).step_by(2).collect();
        assert!(!quoted.is_empty() && quoted.iter().all(|name| counted.contains(name)), "{}: {quoted:?}", key.name);
    }
}

#[test]
fn every_word_of_what_may_wait_is_a_matter_and_every_matter_that_may_is_a_word() {
    let mut words: Vec<&str> = Matter::ALL.iter().map(|matter| matter.word()).filter(|word| !word.is_empty()).collect();
    words.sort_unstable();
    let mut known = WAITING.to_vec();
    known.sort_unstable();
    assert_eq!(words, known);
}

#[test]
fn the_printed_file_is_all_comments_and_says_the_defaults() {
    let file = Config::default_file();
    assert_eq!(Config::parse("printed", &file).unwrap(), Config::default());
    assert!(file.lines().all(|line| line.len() <= 132), "{file}");
    let is_key = |line: &str| KEYS.iter().any(|key| line.starts_with(&format!("#{} = ", key.name)));
    assert_eq!(file.lines().filter(|line| is_key(line)).count(), KEYS.len());
    let uncommented: Vec<String> = file
        .lines()
        .map(|line| if is_key(line) { line[1..].replace("\"...\"", &format!("\"{KEY}\"")) } else { line.into() })
        .collect();
    assert_eq!(Config::parse("uncommented", &uncommented.join("\n")).unwrap(), full());
}

#[test]
fn every_default_is_within_the_range_it_is_checked_against() {
    let defaults = toml::Table::try_from(full()).unwrap();
    for key in KEYS {
        if let Shape::Number { min, max } = key.shape {
            let value = u64::try_from(defaults[key.section][key.name].as_integer().unwrap()).unwrap();
            assert!((min..=max).contains(&value), "{}: {value}", key.name);
        }
    }
}

#[test]
fn every_number_is_refused_outside_its_range_and_taken_at_its_ends() {
    for key in KEYS {
        let Shape::Number { min, max } = key.shape else { continue };
        let text = |value: i128| format!("[{}]\n{} = {value}\n", key.section, key.name);
        for outside in [i128::from(min) - 1, i128::from(max) + 1, i128::from(i64::MAX)] {
            let error = error(&text(outside));
            assert_eq!((error.line, error.fault.key.as_str()), (2, &*format!("{}.{}", key.section, key.name)));
            assert_eq!(error.fault.fix, format!("write a whole number from {min} to {max}"));
        }
        for inside in [min, max] {
            let read = Config::parse("", &text(i128::from(inside)));
            let alone = read.err().map(|error| error.fault.problem);
            let expected = |problem: &String| problem.contains(" is more than ") || problem.contains(" has no number");
            assert!(alone.as_ref().is_none_or(expected), "{}: {alone:?}", key.name);
        }
    }
}

#[test]
fn a_whole_file_is_read() {
    let text = format!(
        "[node]\ndomain = \"example.org\"\ncores = [1, 3]\ndata = \"/var/lib/fanal\"\n\
         [listen]\nnative = \"[::]:7400\"\nadmin = \"0.0.0.0:7401\"\nadmin_token = \"{KEY}\"\n\
         [login]\ntoken_keys = [\"{KEY}1\", \"{KEY}2\"]\ntrunk_keys = [\"{KEY}3\"]\nplain = true\n\
         [store]\nkind = \"memory\"\n[limits]\nframe_bytes = 32_768\n[metrics]\nsample = 1\n"
    );
    let config = Config::parse("fanal.toml", &text).unwrap();
    assert_eq!(config.node.cores, Cores::These(vec![1, 3]));
    assert_eq!(config.login.token_keys[1].reveal(), format!("{KEY}2"));
    assert_eq!((config.limits.frame_bytes, config.metrics.sample, config.store.kind), (32_768, 1, StoreKind::Memory));
    assert!(config.login.plain && config.listen.native.is_ipv6());
}

#[test]
fn every_mistake_names_its_place_its_key_and_its_fix() {
    let secrets = format!("[login]\ntoken_keys = [\"{KEY}\"]\ntrunk_keys = [\"{KEY}\"]");
    let rows = [
        ("[node]\ndomian = \"a\"", "2:1", "node.domian", "did you mean domain?"),
        ("[nod]\ndomain = \"a\"", "1:2", "nod", "did you mean node?"),
        ("frame_bytes = 1", "1:1", "frame_bytes", "move it below [limits]"),
        ("[node]\nframe_bytes = 1", "2:1", "node.frame_bytes", "move it below [limits]"),
        ("node = 1", "1:1", "node", "write [node] on its own line"),
        ("[node]\nzzzzzzzz = 1", "2:1", "node.zzzzzzzz", "known are domain, cores, data"),
        ("[node]\n\n  cores = 2", "3:11", "node.cores", "\"all\" or a list"),
        ("[node]\ncores = [0, \"1\"]", "2:9", "node.cores", "\"all\" or a list"),
        ("[node]\ncores = []", "2:9", "node.cores", "at least one"),
        ("[node]\ncores = [1, 2, 1]", "2:9", "node.cores", "each once"),
        ("[node]\ndomain = \"Example.ORG\"", "2:10", "node.domain", "\"example.org\""),
        ("[node]\ndomain = \"a b\"", "2:10", "node.domain", "host name"),
        ("[node]\ndata = \"\"", "2:8", "node.data", "write a directory"),
        ("[listen]\nnative = \"localhost\"", "2:10", "listen.native", "127.0.0.1:7400"),
        ("[listen]\nadmin = \"0.0.0.0:7401\"", "2:9", "listen.admin", "admin_token"),
        ("[listen]\nadmin = \"127.0.0.1:7400\"", "2:9", "listen.admin", "its own port"),
        ("[listen]\nadmin_token = \"short\"", "2:15", "listen.admin_token", "32 or more"),
        ("[tls]\ncertificate = \"a.pem\"", "2:15", "tls.certificate", "private key"),
        ("[tls]\nkey = \"a.pem\"", "2:7", "tls.key", "its certificate"),
        ("[tls]\nkey = 7", "2:7", "tls.key", "a text in quotes"),
        ("[listen]\nws_origins = [1]", "2:14", "listen.ws_origins", "https://example.org"),
        ("[listen]\nws_origins = [\"*\", \"example.org\"]", "2:14", "listen.ws_origins", "https://example.org"),
        ("[listen]\nws_origins = [\"https://example.org/\"]", "2:14", "listen.ws_origins", "https://example.org"),
        (
            "[listen]\nxmpp = \"127.0.0.1:5222\"\nxmpp_location = \"node1\"",
            "3:17",
            "listen.xmpp_location",
            "node1.example.org:5222",
        ),
        ("[listen]\nxmpp_location = \"node1:5222\"", "2:17", "listen.xmpp_location", "listen.xmpp"),
        ("[listen]\nws_url = \"https://example.org\"", "2:10", "listen.ws_url", "wss://example.org"),
        ("[listen]\nws_url = \"wss://example.org/ws\"", "2:10", "listen.ws_url", "without a path"),
        ("[login]\nplain = \"yes\"", "2:9", "login.plain", "true or false"),
        ("[login]\ntoken_keys = [\"short\"]", "2:14", "login.token_keys", "32 or more"),
        (&secrets, "3:14", "login.trunk_keys", "other keys"),
        ("[login]\nhttp = \"login.example.org\"", "2:8", "login.http", "http://127.0.0.1:9000/check"),
        ("[login]\nhttp = \"https://login.example.org\"", "2:8", "login.http", "set login.http_ca"),
        ("[login]\nhttp = \"http://[::1]\"\nhttp_ca = \"ca.pem\"", "3:11", "login.http_ca", "write https"),
        ("[login]\nhttp_ca = \"ca.pem\"", "2:11", "login.http_ca", "name the service"),
        ("[login]\nopen_registration = true\nhttp = \"http://[::1]\"", "2:21", "login.open_registration", "either"),
        ("[link]\ngrace_ms = 1000", "1:2", "link.silent_ms", "at most grace_ms"),
        ("[link]\nnon_real_time = [\"presence\"]", "2:17", "link.non_real_time", "status_text"),
        ("[store]\nkind = \"sqlite\"", "2:8", "store.kind", "\"redb\" or \"postgres\" or \"memory\""),
        ("[limits]\nframe_bytes = \"64k\"", "2:15", "limits.frame_bytes", "a whole number from 1024"),
        ("[listen]\nxmpp = \"[::1]:5222\"\nxmpps = \"[::1]:5222\"", "3:9", "listen.xmpps", "its own port"),
        ("[listen]\nws = \"[::1]:80\"\n[limits]\nframe_bytes = 1024", "4:15", "limits.frame_bytes", "write 26384 or more"),
        ("[limits]\nbacklog_bytes = 4096", "1:2", "limits.high_water_bytes", "at most backlog_bytes"),
        ("[limits]\nframe_bytes = 1024\nframe_bytes = 2048", "3:1", "limits.frame_bytes", "correct this line"),
        ("[limits]\nframe_bytes = ", "2:15", "limits.frame_bytes", "correct this line"),
    ];
    for (text, place, key, fix) in rows {
        let error = error(text);
        let line = error.to_string();
        assert_eq!(error.fault.key, key, "{line}");
        assert!(line.starts_with(&format!("fanal.toml:{place}: {key}: ")), "{text:?}: {line}");
        assert!(error.fault.fix.contains(fix), "{line}");
        assert!(!line.contains('\n'), "{line}");
        assert!(text.get(error.span.clone()).is_some(), "{text:?}: {:?}", error.span);
    }
}

#[test]
fn a_secret_is_never_printed() {
    let text = format!("[login]\ntoken_keys = [\"{KEY}\", \"hush\"]\n");
    assert!(!error(&text).to_string().contains("hush"));
    assert!(!error("[login]\ntoken_keys = [\n\"hush=\nhush\n]").to_string().contains("hush"));
    assert!(!error("hush hush").to_string().contains("hush"));
    assert!(!format!("{:?}", full()).contains(KEY));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever stands in the file, the answer is a configuration or an error whose place is in the text.
    #[test]
    fn no_text_is_too_strange(text in r#"(\[(node|listen|limits|login|é)\]|[a-z_]{1,9} = |[0-9"\[\]{}=.é\n#]|all|true){0,30}"#) {
        match Config::parse("f", &text) {
            Ok(config) => prop_assert_eq!(config.check(), Ok(())),
            Err(error) => {
                prop_assert!(text.get(error.span.clone()).is_some(), "{:?}", error);
                prop_assert!(error.line as usize <= text.matches('\n').count() + 1, "{}", error);
                prop_assert!(!error.to_string().contains('\n'), "{}", error);
            }
        }
    }
}
