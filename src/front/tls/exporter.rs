//! Channel binding (RFC 9266): 32 bytes that both ends of a TLS 1.3 connection know, and nobody on the way.
//!
//! Lives on: every core. rustls' unbuffered connections have no exporter of their own, but tell a key log the exporter's secret.
//! So each connection has a log of its own, which takes that one secret, keeps what it leads to, and nothing else.

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use rustls::KeyLog;
use sha2::{Digest, Sha256, Sha384};
use std::fmt;
use std::sync::OnceLock;

/// The one label that is heard.
const SECRET: &str = "EXPORTER_SECRET";
/// RFC 9266 4.2.
const LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// What a connection's handshake said of its exporter.
#[derive(Default)]
pub(super) struct Heard(OnceLock<[u8; 32]>);

impl Heard {
    /// The binding, once the server has sent its Finished: only then has the client to prove anything.
    pub(super) fn binding(&self) -> Option<[u8; 32]> {
        self.0.get().copied()
    }
}

impl KeyLog for Heard {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if label == SECRET {
            let binding = match secret.len() {
                48 => export::<Sha384, Hmac<Sha384>>(secret),
                _ => export::<Sha256, Hmac<Sha256>>(secret),
            };
            self.0.get_or_init(|| binding);
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == SECRET
    }
}

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Heard")
    }
}

/// RFC 8446 7.5, with an empty context: Expand-Label(Derive-Secret(secret, label, ""), "exporter", Hash(""), 32).
fn export<H: Digest, M: Mac + KeyInit>(secret: &[u8]) -> [u8; 32] {
    let empty = H::digest([]);
    let derived = expand_label::<M>(secret, LABEL, &empty, empty.len());
    let exported = expand_label::<M>(&derived, b"exporter", &empty, 32);
    exported[..32].try_into().expect("both hashes give 32 bytes or more")
}

/// HKDF-Expand-Label (RFC 8446 7.1) of up to one hash's length: the first block of HKDF-Expand.
fn expand_label<M: Mac + KeyInit>(secret: &[u8], label: &[u8], context: &[u8], length: usize) -> Vec<u8> {
    let mut mac = <M as Mac>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(&(length as u16).to_be_bytes());
    mac.update(&[(b"tls13 ".len() + label.len()) as u8]);
    mac.update(b"tls13 ");
    mac.update(label);
    mac.update(&[context.len() as u8]);
    mac.update(context);
    mac.update(&[1]);
    mac.finalize().into_bytes()[..length].to_vec()
}
