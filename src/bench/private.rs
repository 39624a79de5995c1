//! A benchmark's connection inside TLS, and what encryption alone costs.
//!
//! Lives on: the generator's pinned thread. Serves G6. One suite only, AES-128-GCM in TLS 1.3, so that what is measured is known;
//! no certificate is looked at, no session comes back by a ticket. Invariant: of what is heard once the handshake is done, every
//! record counts.

use crate::base::trust::anybody;
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::crypto::aws_lc_rs::{self as library, cipher_suite::TLS13_AES_128_GCM_SHA256};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::io::{self, Read, Write};
use std::ops::{AddAssign, Sub};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a record of TLS 1.3 with a tag of 16 bytes adds: header, content type, tag (RFC 8446 5.2).
const RECORD_EXTRA: u64 = 5 + 1 + 16;
/// How long encryption alone is measured, and how many records between two looks at the clock.
const TIME: Duration = Duration::from_millis(200);
const RECORDS: u32 = 256;

/// What came inside TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Carried {
    /// Without what TLS adds.
    pub bytes: u64,
    /// What TLS adds.
    pub extra: u64,
}

impl Carried {
    pub fn records(self) -> f64 {
        self.extra as f64 / RECORD_EXTRA as f64
    }

    /// What one of the records holds on average.
    pub fn record_bytes(self) -> f64 {
        self.bytes as f64 / self.records()
    }
}

impl AddAssign for Carried {
    fn add_assign(&mut self, other: Carried) {
        (self.bytes, self.extra) = (self.bytes + other.bytes, self.extra + other.extra);
    }
}

impl Sub for Carried {
    type Output = Carried;

    fn sub(self, other: Carried) -> Carried {
        Carried { bytes: self.bytes - other.bytes, extra: self.extra - other.extra }
    }
}

/// How all connections of a benchmark shake hands.
pub fn config() -> io::Result<Arc<ClientConfig>> {
    let mut provider = library::default_provider();
    provider.cipher_suites = vec![TLS13_AES_128_GCM_SHA256];
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&rustls::version::TLS13]);
    let builder = builder.map_err(io::Error::other)?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(anybody()).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// One connection's TLS: bytes in, bytes out.
pub struct Private(ClientConnection);

impl Private {
    /// Its first words are to be sent: `say` gives them.
    pub fn new(config: Arc<ClientConfig>) -> io::Result<Private> {
        let name = ServerName::try_from("localhost").expect("a name");
        let mut session = ClientConnection::new(config, name).map_err(io::Error::other)?;
        session.set_buffer_limit(None);
        Ok(Private(session))
    }

    /// Appends to `out` what goes over the socket to say this, and whatever TLS has to say.
    pub fn say(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        self.0.writer().write_all(bytes)?;
        while self.0.wants_write() {
            self.0.write_tls(out)?;
        }
        Ok(())
    }

    /// Appends to `plain` what these bytes of the socket say.
    ///
    /// # Errors
    /// The server ended TLS, or what came is none.
    pub fn hear(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> io::Result<Carried> {
        // What comes of the handshake is not counted, nor are tickets: they come before anything is measured.
        let (length, is_open) = (bytes.len(), !self.0.is_handshaking());
        let start = plain.len();
        while !bytes.is_empty() {
            self.0.read_tls(&mut bytes)?;
            let state = self.0.process_new_packets().map_err(io::Error::other)?;
            let from = plain.len();
            plain.resize(from + state.plaintext_bytes_to_read(), 0);
            self.0.reader().read_exact(&mut plain[from..])?;
        }
        let heard = (plain.len() - start) as u64;
        // Records that are cut count in parts, which add up.
        Ok(if is_open { Carried { bytes: heard, extra: (length as u64).saturating_sub(heard) } } else { Carried::default() })
    }
}

/// Nanoseconds of this processor to encrypt one record of this length with AES-128-GCM, and nothing else.
///
/// # Panics
/// Above the length of a record.
pub fn encryption_ns(record_bytes: usize) -> f64 {
    assert!(record_bytes <= 1 << 14, "a record holds 16 KiB");
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).expect("the key is as long as it should be"));
    let mut record = vec![0; record_bytes + 1];
    let (began, mut records) = (Instant::now(), 0u32);
    while began.elapsed() < TIME {
        for _ in 0..RECORDS {
            records += 1;
            let mut nonce = [0; NONCE_LEN];
            nonce[..4].copy_from_slice(&records.to_le_bytes());
            let sealed = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from([0; 5]), &mut record);
            let _tag = sealed.expect("the record is no longer than a record may be");
        }
    }
    began.elapsed().as_nanos() as f64 / f64::from(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_records_cost_more_to_encrypt() {
        let (short, long) = (encryption_ns(64), encryption_ns(1 << 14));
        assert!(0.0 < short && short < long, "{short} {long}");
    }
}
