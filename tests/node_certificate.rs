//! Where a node's certificate comes from, and what happens when it changes under the node's hands.

mod support;

use fanal::base::config::{Config, StoreKind};
use fanal::node::certificates::{Keeper, self_signed};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

fn config(data: &Path) -> Config {
    let mut config = Config::default();
    config.node.data = data.to_owned();
    config
}

/// A configuration with files of the operator's, both the same.
fn with_files(data: &Path, pem: &str) -> Config {
    let file = data.join("own.pem");
    fs::write(&file, pem).unwrap();
    let mut config = config(data);
    (config.tls.certificate, config.tls.key) = (Some(file.clone()), Some(file));
    config
}

fn error(config: &Config) -> String {
    Keeper::open(config).err().expect("no certificate").to_string()
}

#[test]
fn without_files_one_is_made_once_and_kept_for_this_user_alone() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("certificate.pem");
    let (keeper, said) = Keeper::open(&config(data.path())).unwrap();
    assert!(said.contains("self-signed") && said.contains("localhost") && said.contains("tls.certificate"), "{said}");
    let made = fs::read_to_string(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    Keeper::open(&config(data.path())).unwrap();
    keeper.reload().unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), made, "it is the same after a restart");
    let mut elsewhere = config(data.path());
    elsewhere.node.domain = "example.org".into();
    Keeper::open(&elsewhere).unwrap();
    assert_ne!(fs::read_to_string(&file).unwrap(), made, "another domain needs another one");
    fs::write(&file, "nonsense").unwrap();
    let error = error(&config(data.path()));
    assert!(error.contains("certificate.pem") && error.contains("Delete it"), "{error}");
}

#[test]
fn a_node_that_keeps_nothing_writes_no_certificate_and_any_domain_can_have_one() {
    let data = tempfile::tempdir().unwrap();
    let mut config = config(data.path());
    config.store.kind = StoreKind::Memory;
    for domain in ["localhost", "example.org", "127.0.0.1", "b\u{fc}cher.example"] {
        config.node.domain = domain.into();
        let (_, said) = Keeper::open(&config).unwrap();
        assert!(said.contains(domain) && said.contains("forgotten"), "{said}");
    }
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
}

#[test]
fn the_operators_files_are_used_and_read_again_and_what_is_wrong_with_them_is_said() {
    let data = tempfile::tempdir().unwrap();
    let config = with_files(data.path(), &self_signed("localhost").unwrap());
    let (keeper, said) = Keeper::open(&config).unwrap();
    assert!(said.ends_with("own.pem"), "{said}");
    fs::write(data.path().join("own.pem"), self_signed("example.com").unwrap()).unwrap();
    let said = keeper.reload().unwrap();
    assert!(said.contains("does not name"), "{said}");
    fs::write(data.path().join("own.pem"), "nonsense").unwrap();
    let failed = keeper.reload().unwrap_err().to_string();
    assert!(failed.contains("own.pem") && failed.contains("no certificate") && failed.contains("as PEM"), "{failed}");
    fs::remove_file(data.path().join("own.pem")).unwrap();
    let missing = error(&config);
    assert!(missing.contains("tls.certificate") && missing.contains("own.pem") && missing.contains("Check"), "{missing}");
}

/// A certificate that signs itself and ends so many days from now.
fn ending_in(days: i64) -> String {
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let hour = std::time::Duration::from_secs(3600);
    params.not_after = (std::time::SystemTime::now() + hour).into();
    params.not_after += hour * 24 * u32::try_from(days.max(0)).unwrap();
    params.not_after -= hour * 24 * u32::try_from((-days).max(0)).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().pem() + &key.serialize_pem()
}

#[test]
fn a_certificate_that_ends_soon_is_said_to_when_it_is_read_and_measured() {
    let data = tempfile::tempdir().unwrap();
    let mut config = with_files(data.path(), &ending_in(13));
    let (keeper, said) = Keeper::open(&config).unwrap();
    assert!(said.contains("own.pem; it ends in 13 days: put a new one") && said.contains("SIGHUP"), "{said}");
    for (days, words) in [(15, None), (0, Some("ends in 0 days")), (-2, Some("has ended 1 days ago"))] {
        fs::write(data.path().join("own.pem"), ending_in(days)).unwrap();
        let said = keeper.reload().unwrap();
        assert_eq!(said.contains("; it "), words.is_some(), "{days}: {said}");
        assert!(words.is_none_or(|words| said.contains(words)), "{days}: {said}");
        let left = keeper.seconds_left().unwrap();
        assert!((3500..=3600).contains(&(left - days * 86_400)), "{days}: {left}");
    }
    config.store.kind = StoreKind::Memory;
    (config.listen.native, config.listen.admin) = ("127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    config.node.cores = support::config(1).node.cores;
    let mut node = support::TestNode::start(&config);
    assert!(node.node().certificate.contains("has ended"), "{}", node.node().certificate);
    let admin = node.0.as_mut().unwrap().start_admin(&config).unwrap();
    let metrics = fanal::admin::client::Client::new(admin, None).get("/metrics").unwrap();
    let left = metrics.lines().find_map(|line| line.strip_prefix("fanal_certificate_seconds_left ")).expect("it is measured");
    assert!((-172_800..-165_000).contains(&left.parse::<i64>().unwrap()), "{left}");
}

#[test]
fn a_key_that_is_not_the_certificates_is_refused_and_said_to_be() {
    let data = tempfile::tempdir().unwrap();
    let mut config = with_files(data.path(), &self_signed("localhost").unwrap());
    let other = data.path().join("other.pem");
    fs::write(&other, self_signed("localhost").unwrap()).unwrap();
    config.tls.key = Some(other);
    let error = error(&config);
    assert!(error.contains("the key is not the certificate's") && error.contains("other.pem"), "{error}");
}

/// A node in the foreground whose files change: SIGHUP has them read again, and it serves on whatever is in them.
#[test]
fn sighup_and_the_admin_api_have_the_certificate_read_again() {
    let data = tempfile::tempdir().unwrap();
    let (own, file) = (data.path().join("own.pem"), data.path().join("fanal.toml"));
    fs::write(&own, self_signed("localhost").unwrap()).unwrap();
    fs::write(&file, format!("[tls]\ncertificate = {own:?}\nkey = {own:?}\n[store]\nkind = \"memory\"")).unwrap();
    let cpu = fanal::drive::pin::processors()[0].id.to_string();
    let mut command = support::served::fanal(&["serve", "--cores", &cpu, "--native", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let mut child = command.arg("--config").arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut warnings = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let said: Vec<String> = lines.by_ref().take_while(|line| line != "serving").collect();
    assert!(said.iter().any(|line| line.starts_with("TLS goes by") && line.ends_with("own.pem")), "{said:?}");
    let admin = said.iter().find_map(|line| line.strip_prefix("admin   http://")).unwrap().parse().unwrap();
    let client = fanal::admin::client::Client::new(admin, None);
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    let signal = |signal| nix::sys::signal::kill(pid, signal).unwrap();

    signal(nix::sys::signal::Signal::SIGHUP);
    assert!(lines.next().unwrap().starts_with("SIGHUP: TLS goes by the certificate in "));
    assert!(client.reload_certificate().unwrap().ends_with("own.pem"));
    fs::write(&own, "nonsense").unwrap();
    signal(nix::sys::signal::Signal::SIGHUP);
    let warning = warnings.next().unwrap();
    assert!(warning.contains("own.pem") && warning.contains("stays as it was"), "{warning}");
    let refused = client.reload_certificate().unwrap_err().to_string();
    assert!(refused.contains("own.pem") && refused.contains("stays as it was"), "{refused}");
    signal(nix::sys::signal::Signal::SIGTERM);
    assert!(child.wait().unwrap().success());
}
