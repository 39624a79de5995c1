//! What is left of a TLS 1.3 connection here once the kernel encrypts what we send: opening what the peer sends (RFC 8446 5.2).
//!
//! Lives on: the core that owns the connection, and moves with it. Serves C8. The kernel could open records too, but a record that
//! is no data would then end a receive of io_uring in an error. Invariants: as for `Tls`; a peer that wants us to change our keys
//! has to come back on a new connection, because kernels before 6.14 can't change them.

use super::{Fault, RECORD_BYTES};
use crate::base::sealing::{Cipher, Sealing};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::{AlertDescription, CommonState, ConnectionTrafficSecrets, Error, ExtractedSecrets, ProtocolVersion};

/// Kinds of records.
const ALERT: u8 = 21;
const MESSAGE: u8 = 22;
const DATA: u8 = 23;
/// A KeyUpdate (RFC 8446 4.6.3), all but its last byte, which is 1 when our keys are to change too.
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];
const HEADER_BYTES: usize = 5;
/// Records that one key of AES-GCM may protect (RFC 8446 5.5: 2^24.5). At the limit the connection ends.
const SEALED_RECORDS: usize = 1 << 24;

/// The receiving half.
pub(super) struct Opening {
    keys: KernelConnection<ServerConnectionData>,
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    /// Records that the kernel may have made.
    sealed: usize,
}

/// Whether the kernel could take over what this connection sends.
pub(super) fn fits(session: &CommonState) -> bool {
    let suite = session.negotiated_cipher_suite().and_then(|suite| suite.tls13());
    let is_known = suite.is_some_and(|suite| suite.common.suite.as_str().is_some_and(|name| name.contains("_AES_")));
    let is_still = !session.is_handshaking() && !session.wants_write();
    is_known && is_still && session.protocol_version() == Some(ProtocolVersion::TLSv1_3)
}

/// Takes a connection apart: what the kernel needs, and what is left here.
///
/// Errors: it does not fit.
pub(super) fn take_apart(session: UnbufferedServerConnection) -> Result<(Sealing, Opening), Error> {
    let (ExtractedSecrets { tx, rx }, keys) = session.dangerous_into_kernel_connection()?;
    let (cipher, key, iv) = material(&tx.1)?;
    let mut sealing = Sealing { cipher, key: [0; 32], iv, sequence: tx.0 };
    sealing.key[..key.len()].copy_from_slice(key);
    let (cipher, key, iv) = material(&rx.1)?;
    Ok((sealing, Opening { keys, key: opener(cipher, key)?, iv, sequence: rx.0, sealed: 0 }))
}

fn material(secrets: &ConnectionTrafficSecrets) -> Result<(Cipher, &[u8], [u8; 12]), Error> {
    let (cipher, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
        _ => return Err(Error::General("the kernel is given AES-GCM only".into())),
    };
    Ok((cipher, key.as_ref(), iv.as_ref().try_into().expect("an IV has 12 bytes")))
}

fn opener(cipher: Cipher, key: &[u8]) -> Result<LessSafeKey, Error> {
    let algorithm: &'static Algorithm = match cipher {
        Cipher::Aes128Gcm => &AES_128_GCM,
        Cipher::Aes256Gcm => &AES_256_GCM,
    };
    UnboundKey::new(algorithm, key).map(LessSafeKey::new).map_err(|_| Error::General("the key has another length".into()))
}

impl Opening {
    /// The kernel is given what makes so many records.
    pub fn count(&mut self, records: usize) -> Result<(), Fault> {
        self.sealed += records;
        if self.sealed <= SEALED_RECORDS { Ok(()) } else { Err(Fault::KeysUsedUp) }
    }

    /// Takes all whole records from `incoming`; what they say is appended to `plain`. True: the peer will say no more.
    pub fn work_off(&mut self, incoming: &mut Vec<u8>, plain: &mut Vec<u8>) -> Result<bool, Fault> {
        let (mut at, mut closed) = (0, false);
        while !closed && let Some(length) = record_bytes(&incoming[at..])? {
            closed = self.open(&mut incoming[at..at + length], plain)?;
            at += length;
        }
        incoming.drain(..at);
        Ok(closed)
    }

    fn open(&mut self, record: &mut [u8], plain: &mut Vec<u8>) -> Result<bool, Fault> {
        let (header, sealed) = record.split_at_mut(HEADER_BYTES);
        let header: [u8; HEADER_BYTES] = (&*header).try_into().expect("it was split there");
        let mut nonce = self.iv;
        for (byte, of_sequence) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= of_sequence;
        }
        let opened = self.key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(header), sealed);
        let opened = opened.map_err(|_| Error::DecryptError)?;
        self.sequence += 1;
        // Behind the content stands its kind, and then may stand zeros.
        let end = opened.iter().rposition(|&byte| byte != 0).ok_or(Error::DecryptError)?;
        let content = &opened[..end];
        match (opened[end], content) {
            (DATA, _) => plain.extend_from_slice(content),
            (ALERT, [_, 0]) => return Ok(true),
            (ALERT, [_, alert]) => return Err(Error::AlertReceived(AlertDescription::from(*alert)).into()),
            (MESSAGE, [update @ .., 0]) if *update == KEY_UPDATE => self.update()?,
            (MESSAGE, [update @ .., 1]) if *update == KEY_UPDATE => return Err(Fault::KeysUsedUp),
            _ => return Err(Error::General("a record of a kind that may not come now".into()).into()),
        }
        Ok(false)
    }

    /// The peer goes on with new keys.
    fn update(&mut self) -> Result<(), Error> {
        let (sequence, secrets) = self.keys.update_rx_secret()?;
        let (cipher, key, iv) = material(&secrets)?;
        (self.key, self.iv, self.sequence) = (opener(cipher, key)?, iv, sequence);
        Ok(())
    }
}

/// Length of the record at the start; `None`: its end has not come.
fn record_bytes(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    let Some(&[kind, _, _, high, low]) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let length = HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if kind != DATA {
        return Err(Error::DecryptError.into());
    }
    if length > RECORD_BYTES {
        return Err(Error::PeerSentOversizedRecord.into());
    }
    Ok((bytes.len() >= length).then_some(length))
}
