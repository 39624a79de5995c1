//! What is left to TLS once the kernel encrypts what is sent: the kernel's part is played here.
mod tls_pair;

use ::aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use fanal::base::sealing::{Cipher, Sealing};
use fanal::front::tls::Fault;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use std::sync::Arc;
use tls_pair::{Pair, Site, end_point};

/// What the kernel does with what it was given (RFC 8446 5.2).
struct Kernel {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Kernel {
    fn new(sealing: &Sealing) -> Kernel {
        let algorithm = if sealing.cipher == Cipher::Aes128Gcm { &AES_128_GCM } else { &AES_256_GCM };
        let key = UnboundKey::new(algorithm, &sealing.key[..sealing.cipher.key_bytes()]).unwrap();
        Kernel { key: LessSafeKey::new(key), iv: sealing.iv, sequence: sealing.sequence }
    }

    fn seal(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let (mut inner, length) = ([content, &[kind]].concat(), content.len() + 17);
        let header = [23, 3, 3, (length >> 8) as u8, length as u8];
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()).for_each(|(byte, of_sequence)| *byte ^= of_sequence);
        self.sequence += 1;
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(header), &mut inner).unwrap();
        [&header[..], &inner].concat()
    }
}

/// A connection that the kernel would encrypt, once both have spoken.
fn handed_over(suite: rustls::SupportedCipherSuite) -> (Pair, Option<Kernel>) {
    let mut site = Site::new();
    site.terms = site.terms.in_kernel(true);
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![suite];
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(site.roots.clone()).with_no_client_auth();
    let mut pair = site.pair_of(&Arc::new(config));
    assert!(pair.server.hand_over().is_none(), "not before the handshake");
    pair.talk();
    let bindings = pair.server.bindings();
    assert_eq!(bindings.end_point, end_point(&pair.client));
    let kernel = pair.server.hand_over().map(|sealing| Kernel::new(&sealing));
    assert_eq!(pair.server.bindings(), bindings, "a log-in may come afterwards");
    assert!(pair.server.hand_over().is_none(), "once");
    (pair, kernel)
}

const FIT: [rustls::SupportedCipherSuite; 2] =
    [aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256, aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384];

#[test]
fn what_the_kernel_sends_after_the_hand_over_goes_on_where_rustls_stopped() {
    for suite in FIT {
        for piece in [1, 5, 100, usize::MAX] {
            let (mut pair, kernel) = handed_over(suite);
            let (mut kernel, mut plain) = (kernel.expect("it fits"), Vec::new());
            for _ in 0..3 {
                pair.server.send(b"from the kernel", &mut plain).unwrap();
                assert_eq!(plain, b"from the kernel", "nobody has encrypted it here");
                let record = kernel.seal(23, &plain);
                plain.clear();
                pair.hear(&record);
                assert!(pair.at_client.ends_with(b"from the kernel"));
                pair.at_server.clear();
                pair.ask(&[7; 40_000]);
                pair.carry_in(piece).unwrap();
                assert!(pair.at_server == [7; 40_000]);
            }
            // The client changes its keys when it is asked to.
            let update = kernel.seal(22, &[24, 0, 0, 1, 1]);
            pair.hear(&update);
            pair.ask(b"with other keys");
            pair.carry_in(piece).unwrap();
            assert!(pair.at_server.ends_with(b"with other keys"));
            pair.client.send_close_notify();
            pair.carry_in(piece).unwrap();
            assert!(pair.server.peer_closed());
            pair.server.close(&mut plain);
            assert!(plain.is_empty(), "the driver says goodbye");
        }
    }
}

#[test]
fn what_does_not_fit_the_kernel_stays_here() {
    let others =
        [aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256, aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    for suite in others {
        let (mut pair, kernel) = handed_over(suite);
        assert!(kernel.is_none());
        pair.talk();
    }
    let mut pair = Site::new().pair(&rustls::version::TLS13);
    pair.talk();
    assert!(pair.server.hand_over().is_none(), "nobody has asked for it");
    pair.talk();
}

#[test]
fn after_the_hand_over_bad_records_end_the_connection_and_nothing_is_kept() {
    let mut pieces: Vec<Vec<u8>> = [20, 21, 22, 99].map(|kind| vec![kind, 3, 3, 0, 2, 1, 0]).to_vec();
    pieces.push(vec![23, 3, 3, 0xff, 0xff]);
    pieces.push([&[23, 3, 3, 0, 40][..], &[0; 40]].concat());
    pieces.push(vec![23, 3, 3, 0, 0]);
    for bad in pieces {
        let (mut pair, _) = handed_over(FIT[0]);
        assert!(pair.server.received(&bad, &mut pair.at_server).is_err(), "{bad:?}");
        let heard = pair.at_server.len();
        pair.ask(b"still there?");
        pair.carry();
        assert_eq!(pair.at_server.len(), heard, "nothing is heard after it");
    }
    let (mut pair, _) = handed_over(FIT[0]);
    pair.client.refresh_traffic_keys().unwrap();
    assert!(matches!(pair.carry_in(usize::MAX), Err(Fault::KeysUsedUp)), "the kernel's keys can't be changed");
}
