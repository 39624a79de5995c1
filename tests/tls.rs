//! TLS as a layer of bytes, against rustls' own client: versions, cuts, tickets, reload, floods, goodbyes.
mod tls_pair;

use fanal::front::binding::Bindings;
use fanal::front::tls::{Application, Fault, HANDSHAKE_BYTES, Identity, RECORD_BYTES, Tls};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion};
use std::sync::Arc;
use tls_pair::{EXPORTER, Site, VERSIONS, end_point, made};

#[test]
fn both_versions_talk_however_the_bytes_are_cut() {
    let site = Site::new();
    for version in VERSIONS {
        for piece in [1, 2, 5, 7, 100, usize::MAX] {
            let mut pair = site.pair(version);
            assert!(pair.server.is_handshaking() && pair.server.cost_us() > 0);
            pair.ask(b"early");
            pair.carry_in(piece).unwrap();
            assert!(!pair.server.is_handshaking() && pair.server.cost_us() == 0);
            assert_eq!(pair.client.protocol_version(), Some(version.version));
            pair.ask(&[7; 40_000]);
            pair.carry_in(piece).unwrap();
            assert_eq!(pair.at_server, [&b"early"[..], &[7; 40_000]].concat());
            pair.talk();
        }
    }
}

#[test]
fn a_first_flight_cut_at_any_byte_is_the_same_flight() {
    let site = Site::new();
    for version in VERSIONS {
        let mut hello = Vec::new();
        site.pair(version).client.write_tls(&mut hello).unwrap();
        for cut in 0..hello.len() {
            let (mut server, mut plain, mut out) = (Tls::new(&site.terms, Application::Xmpp).unwrap(), Vec::new(), Vec::new());
            server.received(&hello[..cut], &mut plain).unwrap();
            assert!(!server.has_pending(), "answered before the hello was whole");
            server.received(&hello[cut..], &mut plain).unwrap();
            server.send(&[], &mut out).unwrap();
            assert!(plain.is_empty() && out[0] == 22 && !server.has_pending());
        }
    }
}

#[test]
fn much_goes_out_in_full_records_and_little_in_one() {
    let site = Site::new();
    for version in VERSIONS {
        let mut pair = site.pair(version);
        pair.carry();
        for (bytes, records) in [(1, 1), (16 * 1024, 1), (16 * 1024 + 1, 2), (100_000, 7)] {
            let mut out = b"kept".to_vec();
            pair.server.send(&vec![9; bytes], &mut out).unwrap();
            assert!(out.starts_with(b"kept"));
            assert_eq!(records_of(&out[4..]).len(), records, "{bytes}");
            pair.at_client.clear();
            pair.hear(&out[4..]);
            assert_eq!(pair.at_client, vec![9; bytes]);
        }
    }
}

/// The content types of whole records.
fn records_of(mut bytes: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        types.push(*kind);
        bytes = &rest[usize::from(u16::from_be_bytes([*high, *low]))..];
    }
    types
}

#[test]
fn both_ends_have_the_same_to_bind_to_and_in_tls_12_the_certificate_alone() {
    let site = Site::new();
    let mut pair = site.pair(&rustls::version::TLS13);
    assert_eq!(pair.server.bindings(), Bindings::default());
    pair.carry();
    let exported = pair.client.export_keying_material([0; 32], EXPORTER, Some(&[])).unwrap();
    assert_eq!(pair.server.bindings(), Bindings { exporter: Some(exported), end_point: end_point(&pair.client) });
    let mut other = site.pair(&rustls::version::TLS13);
    other.carry();
    assert_ne!(other.server.bindings().exporter, Some(exported));
    let mut old = site.pair(&rustls::version::TLS12);
    old.carry();
    assert_eq!(old.server.bindings(), Bindings { exporter: None, end_point: end_point(&old.client) });
}

#[test]
fn both_hashes_of_tls_13_export_alike() {
    let site = Site::new();
    for suite in aws_lc_rs::DEFAULT_CIPHER_SUITES.iter().filter(|suite| suite.version().version == ProtocolVersion::TLSv1_3) {
        let provider = rustls::crypto::CryptoProvider { cipher_suites: vec![*suite], ..aws_lc_rs::default_provider() };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_root_certificates(site.roots.clone()).with_no_client_auth();
        let mut pair = site.pair_of(&Arc::new(config));
        pair.carry();
        assert_eq!(pair.client.negotiated_cipher_suite(), Some(*suite));
        let exported = pair.client.export_keying_material([0; 32], EXPORTER, None).unwrap();
        assert_eq!(pair.server.bindings().exporter, Some(exported), "{suite:?}");
    }
}

#[test]
fn a_client_that_comes_back_resumes_by_ticket_with_a_binding_of_its_own() {
    let site = Site::new();
    for version in VERSIONS {
        let config = Arc::new(site.client_config(version));
        let mut first = site.pair_of(&config);
        first.carry();
        first.talk();
        assert_eq!(first.client.handshake_kind(), Some(HandshakeKind::Full));
        let mut second = site.pair_of(&config);
        second.carry();
        second.talk();
        assert_eq!(second.client.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
        if version.version == ProtocolVersion::TLSv1_3 {
            let exported = second.client.export_keying_material([0; 32], EXPORTER, Some(&[])).unwrap();
            assert_eq!(second.server.bindings().exporter, Some(exported));
            assert_ne!(first.server.bindings().exporter, Some(exported));
        }
    }
}

#[test]
fn sessions_live_through_a_new_certificate_and_new_clients_get_it() {
    let mut site = Site::new();
    let mut old = site.pair(&rustls::version::TLS13);
    old.carry();
    let first = old.client.peer_certificates().unwrap()[0].clone();
    let identity = made(&mut site.roots);
    site.certificates.replace(identity);
    old.talk();
    let mut new = site.pair(&rustls::version::TLS13);
    new.carry();
    new.talk();
    assert_ne!(new.client.peer_certificates().unwrap()[0], first);
}

#[test]
fn rfc_5929_a_session_keeps_the_certificate_it_began_with_and_tickets_end_with_theirs() {
    for version in VERSIONS {
        let mut site = Site::new();
        let next = made(&mut site.roots);
        let config = Arc::new(site.client_config(version));
        let [mut first, mut begun] = [(); 2].map(|()| site.pair_of(&config));
        first.carry();
        let (mut hello, old) = (Vec::new(), end_point(&first.client));
        begun.client.write_tls(&mut hello).unwrap();
        begun.server.received(&hello[..7], &mut begun.at_server).unwrap();
        site.certificates.replace(next);
        begun.server.received(&hello[7..], &mut begun.at_server).unwrap();
        begun.carry();
        for pair in [&mut first, &mut begun] {
            pair.talk();
            assert_eq!((pair.server.bindings().end_point, end_point(&pair.client)), (old, old), "{version:?}");
        }
        // Clients keep one ticket or two, and try them first: none is good any more.
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut later = site.pair_of(&config);
            later.carry();
            later.talk();
            assert_eq!(later.client.handshake_kind(), Some(expected), "{version:?}");
            assert_eq!(later.server.bindings().end_point, end_point(&later.client));
            assert_ne!(later.server.bindings().end_point, old);
        }
    }
}

#[test]
fn tickets_outlive_a_reload_of_the_same_certificate() {
    for version in VERSIONS {
        let mut site = Site::new();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let load = || Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        site.roots.add(CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()).unwrap();
        let config = Arc::new(site.client_config(version));
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            site.certificates.replace(load());
            let mut pair = site.pair_of(&config);
            pair.carry();
            pair.talk();
            assert_eq!(pair.client.handshake_kind(), Some(expected), "{version:?}");
        }
    }
}

#[test]
fn the_protocol_inside_is_agreed_or_refused_or_left_open() {
    let site = Site::new();
    let offer = |names: &[&str]| {
        let mut config = site.client_config(&rustls::version::TLS13);
        config.alpn_protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        site.pair_of(&Arc::new(config))
    };
    for (names, agreed) in
        [(&["xmpp-client"][..], Some(&b"xmpp-client"[..])), (&["h2", "xmpp-client"], Some(b"xmpp-client")), (&[], None)]
    {
        let mut pair = offer(names);
        pair.carry();
        assert_eq!((pair.client.alpn_protocol(), pair.server.application_protocol()), (agreed, agreed));
    }
    let mut pair = offer(&["http/1.1"]);
    assert!(pair.carry_in(usize::MAX).is_err());
    let mut out = Vec::new();
    pair.server.send(&[], &mut out).unwrap();
    pair.client.read_tls(&mut &out[..]).unwrap();
    let refused = rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol);
    assert_eq!(pair.client.process_new_packets().unwrap_err(), refused);
}

/// Level and description of the one alert that goes out in the clear.
fn alert_of(server: &mut Tls) -> [u8; 2] {
    let mut out = Vec::new();
    server.send(b"dropped", &mut out).unwrap();
    assert_eq!(records_of(&out), [21], "{out:02x?}");
    out[5..].try_into().unwrap()
}

#[test]
fn who_speaks_before_the_handshake_is_told_by_an_alert() {
    let site = Site::new();
    for said in [
        &b"<?xml version='1.0'?><stream:stream>"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0; 64],
        &[22, 3, 1, 0, 0],
        &[22, 3, 1, 0xff, 0xff],
    ] {
        let (mut server, mut plain) = (Tls::new(&site.terms, Application::Xmpp).unwrap(), Vec::new());
        server.received(said, &mut plain).expect_err("this is no TLS");
        assert_eq!(alert_of(&mut server)[0], 2, "fatal");
        assert!(!server.has_pending() && plain.is_empty());
        server.received(said, &mut plain).unwrap();
        assert!(!server.has_pending() && plain.is_empty(), "what comes later is dropped");
    }
}

#[test]
fn a_handshake_that_does_not_end_is_bounded() {
    let site = Site::new();
    let (mut server, mut plain) = (Tls::new(&site.terms, Application::Xmpp).unwrap(), Vec::new());
    // A hello of 64 KiB, in many small records.
    let mut flood = vec![22, 3, 1, 0, 8, 1, 0, 0xff, 0xf0, 3, 3, 0, 0];
    while flood.len() < 2 * HANDSHAKE_BYTES {
        flood.extend([22, 3, 1, 0, 4, 1, 2, 3, 4]);
    }
    let mut taken = 0;
    let fault = flood.chunks(500).find_map(|piece| {
        taken += piece.len();
        server.received(piece, &mut plain).err()
    });
    assert!(matches!(fault, Some(Fault::HandshakeTooLong)), "{fault:?}");
    assert!(taken <= HANDSHAKE_BYTES + 500);
    assert_eq!(alert_of(&mut server), [2, 50]);
    assert!(server.heap_bytes() < HANDSHAKE_BYTES);
}

#[test]
fn a_message_of_tls_itself_that_does_not_end_is_bounded() {
    let site = Site::new();
    let mut pair = site.pair(&rustls::version::TLS13);
    pair.carry();
    let before = pair.server.heap_bytes();
    // Half a record, then a byte at a time: no more is kept than what came.
    pair.ask(&[1; 10_000]);
    let mut record = Vec::new();
    pair.client.write_tls(&mut record).unwrap();
    for byte in &record[..9_000] {
        pair.server.received(&[*byte], &mut pair.at_server).unwrap();
    }
    assert!(pair.server.heap_bytes() <= before + RECORD_BYTES && pair.at_server.is_empty());
    pair.server.received(&record[9_000..], &mut pair.at_server).unwrap();
    assert_eq!((pair.at_server.len(), pair.server.heap_bytes()), (10_000, before), "nothing is kept between records");
}

#[test]
fn changed_records_end_the_connection_with_an_alert() {
    let site = Site::new();
    for version in VERSIONS {
        for at in [0, 1, 3, 5, 12, 20] {
            let mut pair = site.pair(version);
            pair.carry();
            pair.ask(b"pay Bob 10");
            let mut record = Vec::new();
            pair.client.write_tls(&mut record).unwrap();
            record[at] ^= 0x40;
            let outcome = pair.server.received(&record, &mut pair.at_server);
            // A length that grew only makes the server wait.
            assert!(outcome.is_err() && pair.server.has_pending() || at == 3, "{version:?} {at}");
            assert!(pair.at_server.is_empty());
        }
    }
}

#[test]
fn a_goodbye_is_said_and_heard() {
    let site = Site::new();
    for version in VERSIONS {
        let mut pair = site.pair(version);
        pair.carry();
        pair.client.send_close_notify();
        pair.carry();
        assert!(pair.server.peer_closed());
        pair.tell(b"bye");
        assert_eq!(pair.at_client, b"bye", "what was under way still goes out");
        let mut out = Vec::new();
        pair.server.close(&mut out);
        let mut bytes = &out[..];
        pair.client.read_tls(&mut bytes).unwrap();
        assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
        out.clear();
        pair.server.send(b"more", &mut out).unwrap();
        pair.server.close(&mut out);
        assert!(out.is_empty(), "a goodbye is the last word, and said once");
    }
    let mut server = Tls::new(&site.terms, Application::Xmpp).unwrap();
    let mut out = Vec::new();
    server.close(&mut out);
    assert!(out.is_empty());
}

#[test]
fn new_keys_are_taken_and_asking_for_them_without_end_is_not() {
    let site = Site::new();
    let mut pair = site.pair(&rustls::version::TLS13);
    pair.carry();
    for _ in 0..3 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.carry();
        pair.talk();
    }
    let refused = (0..100).find_map(|_| {
        pair.client.refresh_traffic_keys().unwrap();
        pair.carry_in(usize::MAX).err()
    });
    assert!(refused.is_some());
}

#[test]
fn a_certificate_says_what_is_wrong_with_it() {
    let made = rcgen::generate_simple_self_signed(["example.org".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["example.org".to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = Identity::from_pem((chain.clone() + &key).as_bytes(), (chain.clone() + &key).as_bytes()).unwrap();
    assert!(identity.is_for("example.org") && !identity.is_for("example.com") && !identity.is_for("a b"));
    let broken = chain.replace("-----END", "----END");
    let rows = [
        (key.as_str(), key.as_str(), "no certificate"),
        (&chain, &chain, "no private key"),
        ("", "", "no certificate"),
        (&broken, &key, "PEM"),
        (&chain, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", "is encrypted"),
        (&chain, &key.replacen("-----\n", "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n\n", 1), "is encrypted"),
        (&chain, &other.signing_key.serialize_pem(), "not the certificate's"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key, "can't be used"),
    ];
    for (chain, key, why) in rows {
        let error = Identity::from_pem(chain.as_bytes(), key.as_bytes()).expect_err(why).to_string();
        assert!(error.contains(why), "{why}: {error}");
    }
}

#[test]
fn a_client_of_tls_12_whose_signatures_our_key_cannot_make_is_told_so() {
    let site = Site::new();
    let mut hello = Vec::new();
    site.pair(&rustls::version::TLS12).client.write_tls(&mut hello).unwrap();
    // ECDSA by P-256 and SHA-256, the one that is of use here, becomes one that nobody knows.
    let at = hello.windows(4).position(|extension| extension == [0, 13, 0, 28]).expect("signature_algorithms") + 6;
    let ours = hello[at..].chunks(2).position(|scheme| scheme == [4, 3]).expect("it is there");
    hello[at + 2 * ours] = 0xfe;
    let (mut server, mut plain, mut out) = (Tls::new(&site.terms, Application::Xmpp).unwrap(), Vec::new(), Vec::new());
    assert!(server.received(&hello, &mut plain).is_err());
    server.send(&[], &mut out).unwrap();
    assert_eq!(out, [21, 3, 3, 0, 2, 2, 40], "handshake_failure");
}
