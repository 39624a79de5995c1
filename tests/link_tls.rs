//! Links inside TLS, in memory: both ends prove which node they are (Z2), whatever comes and however it is cut.

use fanal::base::id::NodeId;
use fanal::base::reason::{LinkReason, Reason};
use fanal::front::secure_link::SecureLink;
use fanal::front::tls::{BadCredentials, LinkCredentials, LinkIdentity, Tls};
use fanal::front::translate::{Channel, Core, Next, Translate, Users};
use fanal::wire::link::{Frame, Site};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const ONE: Site = Site { cluster: 1, node: NodeId(1) };
const TWO: Site = Site { cluster: 1, node: NodeId(2) };

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A node's certificate and key.
struct Paper {
    chain: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// For these names, from a day ago until then.
    fn paper(&self, names: &[String], ends: SystemTime) -> Paper {
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = (SystemTime::now() - 3 * DAY).into();
        params.not_after = ends.into();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        Paper { chain: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    fn of(&self, site: Site) -> Paper {
        self.paper(&[site.certified_name()], SystemTime::now() + DAY)
    }

    fn credentials(&self, site: Site) -> Arc<LinkCredentials> {
        credentials(&self.pem, &self.of(site), site).unwrap()
    }
}

const DAY: Duration = Duration::from_secs(86_400);

fn credentials(authorities: &str, paper: &Paper, own: Site) -> Result<Arc<LinkCredentials>, BadCredentials> {
    let identity = LinkIdentity::from_pem(authorities.as_bytes(), paper.chain.as_bytes(), paper.key.as_bytes(), own)?;
    Ok(Arc::new(LinkCredentials::new(identity)))
}

/// Both ends, and what each has heard.
struct Pair {
    dialled: Tls,
    accepted: Tls,
    at_dialled: Vec<u8>,
    at_accepted: Vec<u8>,
}

impl Pair {
    fn new(dialler: &LinkCredentials, to: Site, acceptor: &LinkCredentials) -> Pair {
        let (dialled, accepted) = (Tls::link_dialled(dialler, to).unwrap(), Tls::link_accepted(acceptor).unwrap());
        Pair { dialled, accepted, at_dialled: Vec::new(), at_accepted: Vec::new() }
    }

    /// Carries bytes, in pieces of so many, until nobody has any more. What each end says of the other's.
    fn carry(&mut self, piece: usize) -> [Result<(), String>; 2] {
        let mut outcomes = [Ok(()), Ok(())];
        while self.dialled.has_pending() || self.accepted.has_pending() {
            let (mut there, mut back) = (Vec::new(), Vec::new());
            self.dialled.send(&[], &mut there).unwrap();
            for piece in there.chunks(piece) {
                let taken = self.accepted.received(piece, &mut self.at_accepted);
                outcomes[1] = outcomes[1].clone().and(taken.map_err(|fault| fault.to_string()));
            }
            self.accepted.send(&[], &mut back).unwrap();
            for piece in back.chunks(piece) {
                let taken = self.dialled.received(piece, &mut self.at_dialled);
                outcomes[0] = outcomes[0].clone().and(taken.map_err(|fault| fault.to_string()));
            }
        }
        outcomes
    }

    fn say(&mut self) {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        self.dialled.send(b"there", &mut there).unwrap();
        self.accepted.send(b"back", &mut back).unwrap();
        self.accepted.received(&there, &mut self.at_accepted).unwrap();
        self.dialled.received(&back, &mut self.at_dialled).unwrap();
    }
}

/// Z2: in pieces of any size.
#[test]
fn z2_both_ends_know_each_other_and_talk_however_the_bytes_are_cut() {
    let authority = Authority::new("one");
    let (one, two) = (authority.credentials(ONE), authority.credentials(TWO));
    for piece in [1, 2, 3, 7, 100, usize::MAX] {
        let mut pair = Pair::new(&one, TWO, &two);
        assert!(!pair.accepted.is_peer(ONE) && pair.accepted.cost_us() > 0);
        assert_eq!(pair.carry(piece), [Ok(()), Ok(())]);
        assert!(pair.accepted.is_peer(ONE) && pair.dialled.is_peer(TWO) && pair.accepted.cost_us() == 0);
        assert!(!pair.accepted.is_peer(TWO) && !pair.accepted.is_peer(Site { cluster: 2, ..ONE }));
        pair.say();
        assert_eq!((&pair.at_accepted[..], &pair.at_dialled[..]), (&b"there"[..], &b"back"[..]));
    }
}

/// Z2: each flight, cut in two at each of its bytes.
#[test]
fn z2_each_flight_cut_at_any_byte_is_the_same_flight() {
    let authority = Authority::new("one");
    let (one, two) = (authority.credentials(ONE), authority.credentials(TWO));
    for (flight, at_once) in [(0, 450), (1, 3000), (2, 3000)] {
        for cut in 1..at_once {
            let mut pair = Pair::new(&one, TWO, &two);
            let mut out = Vec::new();
            for turn in 0..3 {
                out.clear();
                let (from, to, plain) = match turn % 2 {
                    0 => (&mut pair.dialled, &mut pair.accepted, &mut pair.at_accepted),
                    _ => (&mut pair.accepted, &mut pair.dialled, &mut pair.at_dialled),
                };
                from.send(&[], &mut out).unwrap();
                let (first, rest) = out.split_at(if turn == flight { cut.min(out.len()) } else { 0 });
                to.received(first, plain).unwrap();
                to.received(rest, plain).unwrap();
            }
            assert!(pair.accepted.is_peer(ONE) && pair.dialled.is_peer(TWO), "{flight}: {cut}");
            // Flights differ by a few bytes from one to the next: beyond the end a cut is none.
            if cut > out.len().max(1200) {
                break;
            }
        }
    }
}

/// Z2: neither end takes a certificate of an authority that it does not know, however it is named.
#[test]
fn z2_a_node_of_an_unknown_authority_stays_out_whichever_end_it_is() {
    let (own, foreign) = (Authority::new("the same name"), Authority::new("the same name"));
    let (good, bad) = (own.credentials(ONE), foreign.credentials(TWO));
    let mut dialled = Pair::new(&good, TWO, &bad);
    let [at_dialler, _] = dialled.carry(usize::MAX);
    assert!(at_dialler.unwrap_err().contains("certificate") && !dialled.dialled.is_peer(TWO));
    let both = format!("{}{}", own.pem, foreign.pem);
    let knows_both = credentials(&both, &foreign.of(TWO), TWO).unwrap();
    let mut accepted = Pair::new(&knows_both, ONE, &good);
    let [_, at_acceptor] = accepted.carry(usize::MAX);
    assert!(at_acceptor.unwrap_err().contains("certificate") && !accepted.accepted.is_peer(TWO));
    assert!(accepted.at_accepted.is_empty());
}

/// Z2: a bundle of two authorities is two clusters' trust.
#[test]
fn z2_clusters_with_authorities_of_their_own_know_each_other_by_a_bundle() {
    let (mine, theirs) = (Authority::new("mine"), Authority::new("theirs"));
    let far = Site { cluster: 7, node: NodeId(3) };
    let both = format!("{}{}", mine.pem, theirs.pem);
    let one = credentials(&both, &mine.of(ONE), ONE).unwrap();
    let other = credentials(&both, &theirs.of(far), far).unwrap();
    let mut pair = Pair::new(&one, far, &other);
    assert_eq!(pair.carry(usize::MAX), [Ok(()), Ok(())]);
    assert!(pair.accepted.is_peer(ONE) && pair.dialled.is_peer(far));
}

/// Z2: whoever is dialled must be the one that was meant; whoever dials can't be another one.
#[test]
fn z2_a_node_can_not_pass_for_another_one() {
    let authority = Authority::new("one");
    let (one, three) = (authority.credentials(ONE), authority.credentials(Site { node: NodeId(3), ..ONE }));
    let [at_dialler, at_acceptor] = Pair::new(&one, TWO, &three).carry(usize::MAX);
    let said = at_dialler.unwrap_err();
    assert!(said.contains("node-2.cluster-1.fanal") && said.contains("node-3.cluster-1.fanal"), "{said}");
    assert!(at_acceptor.unwrap_err().contains("alert"), "and it hears so");
    let mut pair = Pair::new(&three, ONE, &one);
    assert_eq!(pair.carry(usize::MAX), [Ok(()), Ok(())]);
    assert!(!pair.accepted.is_peer(TWO), "it is what its certificate says, whatever its hello will say");
}

/// Z2: a certificate that has ended is no longer one, at either end; its own node may still start.
#[test]
fn z2_an_expired_certificate_is_refused() {
    let authority = Authority::new("one");
    let expired = authority.paper(&[TWO.certified_name()], SystemTime::now() - DAY);
    let (one, two) = (authority.credentials(ONE), credentials(&authority.pem, &expired, TWO).unwrap());
    let [at_dialler, _] = Pair::new(&one, TWO, &two).carry(usize::MAX);
    assert!(at_dialler.unwrap_err().contains("expired"));
    let [_, at_acceptor] = Pair::new(&two, ONE, &one).carry(usize::MAX);
    assert!(at_acceptor.unwrap_err().contains("expired"));
}

/// Z2: what a node can't prove itself with is said when it's read, with what it should be.
#[test]
fn z2_files_that_no_other_node_would_take_are_refused_at_once() {
    let (authority, other) = (Authority::new("one"), Authority::new("two"));
    let good = authority.of(ONE);
    let why = |authorities: &str, paper: &Paper| credentials(authorities, paper, ONE).err().expect("refused").to_string();
    assert!(why(&authority.pem, &authority.of(TWO)).contains("node-1.cluster-1.fanal"));
    assert!(why(&other.pem, &good).contains("link.certificate is not of this node"));
    assert!(why("", &good).contains("link.ca holds no certificate"));
    assert!(why("-----BEGIN CERTIFICATE-----\n", &good).contains("link.ca"));
    assert!(why(&authority.pem, &Paper { key: authority.of(ONE).key, ..authority.of(ONE) }).contains("link.key"));
    assert!(why(&authority.pem, &Paper { chain: String::new(), ..authority.of(ONE) }).contains("link.certificate"));
}

/// Z2: TLS 1.2, and no certificate, are not enough.
#[test]
fn z2_tls_1_2_and_a_peer_without_a_certificate_are_refused() {
    let authority = Authority::new("one");
    let acceptor = authority.credentials(TWO);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let paper = authority.of(ONE);
    for (version, certified, why) in [
        (&rustls::version::TLS12, true, "tls12"),
        (&rustls::version::TLS13, false, "certificate"),
        (&rustls::version::TLS13, true, ""),
    ] {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(&[version]).unwrap().with_root_certificates(roots.clone());
        let chain = vec![CertificateDer::from_pem_slice(paper.chain.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(paper.key.as_bytes()).unwrap();
        let config = if certified { builder.with_client_auth_cert(chain, key).unwrap() } else { builder.with_no_client_auth() };
        let name = TWO.certified_name().try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let (mut server, mut plain, mut outcome) = (Tls::link_accepted(&acceptor).unwrap(), Vec::new(), Ok(()));
        while client.wants_write() || server.has_pending() {
            let (mut up, mut down) = (Vec::new(), Vec::new());
            while client.wants_write() {
                client.write_tls(&mut up).unwrap();
            }
            outcome = outcome.and(server.received(&up, &mut plain));
            server.send(&[], &mut down).unwrap();
            client.read_tls(&mut &down[..]).unwrap();
            // What it makes of an alert is its own business.
            let _ = client.process_new_packets();
        }
        let said = outcome.err().map(|fault| fault.to_string().to_lowercase()).unwrap_or_default();
        assert_eq!((said.is_empty(), said.contains(why)), (why.is_empty(), true), "{said}");
        assert_eq!(server.is_peer(ONE), why.is_empty());
    }
}

/// Z2: new connections go by new certificates, those that are there by their own.
#[test]
fn z2_a_new_certificate_is_for_new_connections() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let both = format!("{}{}", old.pem, new.pem);
    let (one, two) = (old.credentials(ONE), credentials(&both, &old.of(TWO), TWO).unwrap());
    let mut before = Pair::new(&one, TWO, &two);
    assert_eq!(before.carry(usize::MAX), [Ok(()), Ok(())]);
    let paper = new.of(TWO);
    two.replace(LinkIdentity::from_pem(both.as_bytes(), paper.chain.as_bytes(), paper.key.as_bytes(), TWO).unwrap());
    before.say();
    assert!(Pair::new(&one, TWO, &two).carry(usize::MAX)[0].is_err(), "node 1 does not know the new authority");
}

/// A core that lends nothing of interest.
fn with_core<T>(work: impl FnOnce(&mut Core<'_>) -> T) -> T {
    struct Nobody;
    impl Users for Nobody {
        fn jid(&self, _user: fanal::base::id::UserId) -> Option<&fanal::base::jid::Bare> {
            None
        }
    }
    let (mut xmpp, mut json, mut follow) = Default::default();
    work(&mut Core::lending(&mut || 4, &Nobody, (&mut xmpp, &mut json), &mut follow))
}

/// What a translator makes of bytes: its outcome, the plain bytes, why it failed, and what it says then.
fn hear(link: &mut SecureLink, bytes: &[u8]) -> (Result<Next, Reason>, Vec<u8>, Option<String>, Vec<u8>) {
    with_core(|core| {
        let (mut plain, mut replies, mut out) = (Vec::new(), Vec::new(), Vec::new());
        let outcome = link.received(bytes, core, &mut plain, &mut replies);
        link.send(&replies, core, &mut out);
        (outcome, plain, core.fault.take(), out)
    })
}

/// Z2: what was said before the handshake was done comes behind it, once.
#[test]
fn z2_a_hello_waits_for_the_handshake_and_neither_end_is_anybody_before() {
    let authority = Authority::new("one");
    let mut dialled = SecureLink::dialled(&authority.credentials(ONE), TWO).unwrap();
    let mut accepted = SecureLink::accepted(authority.credentials(TWO));
    assert!(!accepted.is_peer(ONE) && accepted.channel() == Channel::Clear && accepted.handshake_us() > 0);
    let hello = Frame::Ping(7).encode();
    let (mut there, mut heard) = (Vec::new(), Vec::new());
    with_core(|core| dialled.send(&hello, core, &mut there));
    while !there.is_empty() {
        assert!(!there.windows(8).any(|bytes| bytes == &hello[hello.len() - 8..]), "in the clear");
        let (outcome, plain, _, back) = hear(&mut accepted, &there);
        assert_eq!(outcome, Ok(Next::Here));
        heard.extend(plain);
        there = if back.is_empty() { Vec::new() } else { hear(&mut dialled, &back).3 };
    }
    assert_eq!(heard, hello);
    assert!(accepted.is_peer(ONE) && dialled.is_peer(TWO) && accepted.channel() != Channel::Clear);
    let (mut last, mut out) = (Vec::new(), Vec::new());
    dialled.ending();
    with_core(|core| dialled.send(&hello, core, &mut last));
    let (outcome, plain, fault, _) = hear(&mut accepted, &last);
    assert_eq!((outcome, plain, fault), (Err(Reason::ConnectionLost), hello, None), "and is told that this was the last");
    with_core(|core| dialled.send(&[], core, &mut out));
    assert!(out.is_empty());
}

/// Z2: a peer in the clear is not heard, and hears why in the clear; so it is at either end.
#[test]
fn z2_a_peer_that_speaks_in_the_clear_is_told_so_and_not_heard() {
    let authority = Authority::new("one");
    let refusal = Frame::Refusal(LinkReason::NotAlike).encode();
    for said in [Frame::Ping(7).encode(), refusal.clone(), vec![0], vec![23, 3, 3], b"GET / HTTP/1.1\r\n".to_vec()] {
        let accepted = SecureLink::accepted(authority.credentials(TWO));
        let dialled = SecureLink::dialled(&authority.credentials(ONE), TWO).unwrap();
        for mut link in [accepted, dialled] {
            let (outcome, plain, fault, told) = hear(&mut link, &said);
            assert_eq!((outcome, plain, told), (Err(Reason::TlsFailed), vec![], refusal.clone()));
            assert_eq!(fault.as_deref(), Some(LinkReason::NotAlike.text()));
            assert!(hear(&mut link, &said).3.is_empty(), "it is told once");
        }
    }
}

/// Z2: whatever is bent on the way, the ends do not agree, and nothing is heard.
#[test]
fn z2_a_handshake_bent_anywhere_comes_to_nothing() {
    let authority = Authority::new("one");
    let (one, two) = (authority.credentials(ONE), authority.credentials(TWO));
    for at in (0..1500).step_by(7) {
        let mut pair = Pair::new(&one, TWO, &two);
        let (mut failed, mut is_bent) = (false, false);
        for _ in 0..4 {
            let (mut there, mut back) = (Vec::new(), Vec::new());
            pair.dialled.send(&[], &mut there).unwrap();
            if let Some(byte) = there.get_mut(at) {
                *byte ^= 0x41;
                is_bent = true;
            }
            failed |= pair.accepted.received(&there, &mut pair.at_accepted).is_err();
            pair.accepted.send(&[], &mut back).unwrap();
            failed |= pair.dialled.received(&back, &mut pair.at_dialled).is_err();
        }
        // Where a length was bent the handshake waits for more.
        let is_done = pair.accepted.is_peer(ONE) && pair.dialled.is_peer(TWO);
        assert_eq!(failed || !is_done, is_bent, "{at}");
        assert!(pair.at_accepted.is_empty());
    }
}
