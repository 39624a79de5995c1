//! A node with a certificate of its own, and users with a password.

use super::TestNode;
use fanal::base::config::Config;
use fanal::base::credentials::{ITERATIONS, ScramCredentials};
use fanal::base::jid::Bare;
use fanal::node::certificates::self_signed;
use std::path::PathBuf;
use tempfile::TempDir;

/// The file with the certificate and its key.
pub fn certificate(dir: &TempDir) -> PathBuf {
    dir.path().join("own.pem")
}

/// A node that goes by the certificate in a new directory; each user's password is "pencil".
pub fn start(mut config: Config, users: &[&str]) -> (TestNode, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(certificate(&dir), self_signed("localhost").unwrap()).unwrap();
    (config.tls.certificate, config.tls.key) = (Some(certificate(&dir)), Some(certificate(&dir)));
    let mut node = TestNode::start(&config);
    let mut control = node.0.as_mut().unwrap().control();
    for user in users {
        let credentials = ScramCredentials::from_password("pencil", &[7; 16], ITERATIONS);
        control.add_user(&Bare::new(&format!("{user}@localhost")).unwrap(), Some(credentials)).unwrap();
    }
    (node, dir)
}
