//! TLS over real sockets: rustls' and OpenSSL's clients at the XMPP doors of a real node, and what peers that mean ill get.

mod support;

use base64::{Engine, prelude::BASE64_STANDARD};
use fanal::base::credentials::{Hash, ITERATIONS};
use fanal::front::doors::Speaks;
use fanal::node::certificates::self_signed;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion};
use sha2::{Digest, Sha256, Sha384, Sha512};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use support::{LONG, TestNode, certified};

const OPEN: &str = "<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                    xmlns:stream='http://etherx.jabber.org/streams'>";

const EXPORTER: &str = "tls-exporter";
const END_POINT: &str = "tls-server-end-point";
const BOTH: [&str; 2] = [EXPORTER, END_POINT];

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A node with both XMPP doors, and alice, whose password is "pencil".
struct Site {
    node: TestNode,
    dir: tempfile::TempDir,
}

impl Site {
    fn start(cores: usize) -> Site {
        let mut config = support::config(cores);
        (config.listen.xmpp, config.listen.xmpps) = (Some(any_port()), Some(any_port()));
        config.listen.xmpp_location = Some("node1.example.org:5222".into());
        let (node, dir) = certified::start(config, &["alice"]);
        Site { node, dir }
    }

    fn address(&self, door: Speaks) -> SocketAddr {
        self.node.node().address(door).expect("the door is open")
    }

    fn certificate(&self) -> PathBuf {
        certified::certificate(&self.dir)
    }

    /// The node shows this certificate from now on.
    fn take(&self, certificate: &str) {
        fs::write(self.certificate(), certificate).unwrap();
        self.node.node().reload_certificate().unwrap();
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.certificate()).unwrap()).unwrap();
        roots
    }

    fn client_config(&self) -> ClientConfig {
        client_config(&[&TLS12, &TLS13], self.roots())
    }

    /// A TLS connection to the direct door, with the stream's features read.
    fn connect(&self, config: &Arc<ClientConfig>) -> (Stream, String) {
        self.shake_hands(TcpStream::connect(self.address(Speaks::Xmpps)).unwrap(), config)
    }

    /// The same at the other door.
    fn connect_by_start_tls(&self, config: &Arc<ClientConfig>) -> (Stream, String) {
        let mut socket = TcpStream::connect(self.address(Speaks::Xmpp)).unwrap();
        socket.write_all(OPEN.as_bytes()).unwrap();
        until(&mut socket, "</stream:features>");
        socket.write_all(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").unwrap();
        assert!(until(&mut socket, ">").starts_with("<proceed "));
        self.shake_hands(socket, config)
    }

    fn shake_hands(&self, socket: TcpStream, config: &Arc<ClientConfig>) -> (Stream, String) {
        socket.set_read_timeout(Some(LONG)).unwrap();
        let client = ClientConnection::new(config.clone(), ServerName::try_from("localhost").unwrap()).unwrap();
        let mut stream = StreamOwned::new(client, socket);
        stream.write_all(OPEN.as_bytes()).unwrap();
        let features = until(&mut stream, "</stream:features>");
        (stream, features)
    }
}

fn client_config(versions: &[&'static SupportedProtocolVersion], roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots).with_no_client_auth()
}

/// As XEP-0440 lists kinds of bindings.
fn listed(kinds: &[&str]) -> String {
    kinds.iter().map(|kind| format!("<channel-binding type='{kind}'/>")).collect()
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// All that comes up to and with `end`.
fn until(stream: &mut impl Read, end: &str) -> String {
    let (mut text, mut byte) = (String::new(), [0]);
    while !text.ends_with(end) {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "closed after {text}");
        text.push(char::from(byte[0]));
    }
    text
}

/// Logs alice in by a -PLUS mechanism bound to this, and says what the server answers at last.
fn log_in(stream: &mut Stream, hash: Hash, (kind, channel): (&str, &[u8])) -> String {
    let name = if hash == Hash::Sha1 { "SCRAM-SHA-1-PLUS" } else { "SCRAM-SHA-256-PLUS" };
    let header = format!("p={kind},,");
    let first = BASE64_STANDARD.encode(format!("{header}n=alice,r=abcdef"));
    write!(stream, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{name}'>{first}</auth>").unwrap();
    let answer = sasl_answer(stream);
    let Some(challenge) = answer.strip_suffix("</challenge>") else { return answer };
    let challenge = String::from_utf8(BASE64_STANDARD.decode(challenge.rsplit('>').next().unwrap()).unwrap()).unwrap();
    let nonce = challenge.split(',').next().unwrap();
    let binding = BASE64_STANDARD.encode([header.as_bytes(), channel].concat());
    let last = format!("c={binding},{nonce}");
    let said = format!("n=alice,r=abcdef,{challenge},{last}");
    let mut salted = vec![0; hash.bytes()];
    match hash {
        Hash::Sha1 => pbkdf2::pbkdf2_hmac::<sha1::Sha1>(b"pencil", &[7; 16], ITERATIONS, &mut salted),
        Hash::Sha256 => pbkdf2::pbkdf2_hmac::<sha2::Sha256>(b"pencil", &[7; 16], ITERATIONS, &mut salted),
    }
    let key = hash.hmac(&salted, &[b"Client Key"]);
    let signature = hash.hmac(&hash.digest(&key), &[said.as_bytes()]);
    let proof: Vec<u8> = key.iter().zip(signature).map(|(key, signature)| key ^ signature).collect();
    let response = BASE64_STANDARD.encode(format!("{last},p={}", BASE64_STANDARD.encode(proof)));
    write!(stream, "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{response}</response>").unwrap();
    sasl_answer(stream)
}

/// A whole `<challenge/>`, `<failure/>` or `<success/>`.
fn sasl_answer(stream: &mut Stream) -> String {
    let start = until(stream, ">");
    let name = start[1..].split(' ').next().unwrap();
    let end = format!("</{name}>");
    start + &until(stream, &end)
}

/// Logs alice in, bound to the connection alone.
fn log_in_by_exporter(stream: &mut Stream, hash: Hash) -> String {
    let own = exporter(stream);
    log_in(stream, hash, (EXPORTER, &own))
}

fn exporter(stream: &Stream) -> [u8; 32] {
    stream.conn.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(&[])).unwrap()
}

/// What the server answers to a log-in by SASL 2, up to the end of its answer.
fn log_in_at_once(stream: &mut Stream, mechanism: &str, data: &[u8], fast: &str) -> String {
    let first = BASE64_STANDARD.encode(data);
    write!(
        stream,
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'><initial-response>{first}</initial-response>\
         <user-agent id='one'/><bind xmlns='urn:xmpp:bind:0'/>{fast}</authenticate>"
    )
    .unwrap();
    let answer = until(stream, ">");
    let end = if answer.starts_with("<failure") { "</failure>" } else { "</success>" };
    answer + &until(stream, end)
}

#[test]
fn xep_0484_a_bound_token_holds_on_the_connection_whose_exporter_is_in_it() {
    for cores in [1, 2] {
        let site = Site::start(cores);
        let config = Arc::new(site.client_config());
        let (mut stream, features) = site.connect(&config);
        assert!(features.contains("<mechanism>HT-SHA-256-EXPR</mechanism>"), "{features}");
        let wanted = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-EXPR'/>";
        let answer = log_in_at_once(&mut stream, "PLAIN", b"\0alice\0pencil", wanted);
        let token = answer.split_once(" token='").expect(&answer).1.split('\'').next().unwrap();
        let shows = |mechanism: &str, channel: &dyn Fn(&Stream) -> Vec<u8>| {
            let (mut stream, _) = site.connect(&config);
            let proof = Hash::Sha256.hmac(token.as_bytes(), &[b"Initiator", &channel(&stream)]);
            let data = [b"alice\0", &proof[..]].concat();
            log_in_at_once(&mut stream, mechanism, &data, "<fast xmlns='urn:xmpp:fast:0'/>").contains("<bound ")
        };
        let own = exporter(&stream).to_vec();
        assert!(shows("HT-SHA-256-EXPR", &|stream| exporter(stream).to_vec()));
        assert!(!shows("HT-SHA-256-EXPR", &|_| own.clone()), "another connection's");
        assert!(!shows("HT-SHA-256-EXPR", &|_| Vec::new()), "none");
        assert!(!shows("HT-SHA-256-NONE", &|_| Vec::new()), "the mechanism that it was not given for");
    }
}

#[test]
fn a_log_in_bound_to_its_connection_holds_there_and_nowhere_else() {
    for cores in [1, 2] {
        let site = Site::start(cores);
        let config = Arc::new(site.client_config());
        for hash in [Hash::Sha1, Hash::Sha256] {
            let (mut stream, features) = site.connect(&config);
            assert!(features.contains("SCRAM-SHA-256-PLUS") && features.contains("SCRAM-SHA-1-PLUS"), "{features}");
            assert!(features.contains(">PLAIN<"), "{features}");
            let bindings = format!("<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'>{}</sasl-channel-binding>", listed(&BOTH));
            let (first, second) = features.split_once("<authentication xmlns='urn:xmpp:sasl:2'>").expect("both kinds of SASL");
            assert_eq!(features.matches(&bindings).count(), 1, "XEP-0440: a feature of the stream, for both: {features}");
            assert!([first, second].iter().all(|kind| kind.contains("<mechanism>SCRAM-SHA-256-PLUS</mechanism>")), "{features}");
            assert!(log_in_by_exporter(&mut stream, hash).starts_with("<success"));
            let (mut other, _) = site.connect(&config);
            let refused = log_in(&mut other, hash, (EXPORTER, &exporter(&stream)));
            assert!(refused.contains("not-authorized"), "{refused}");
        }
    }
}

#[test]
fn a_client_that_comes_back_resumes_and_sessions_live_through_a_new_certificate() {
    let site = Site::start(1);
    let config = Arc::new(site.client_config());
    let (mut first, _) = site.connect(&config);
    let (second, _) = site.connect(&config);
    assert_eq!(second.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    site.take(&self_signed("localhost").unwrap());
    assert!(log_in_by_exporter(&mut first, Hash::Sha256).starts_with("<success"), "the session goes on");
    let (third, _) = site.connect(&Arc::new(site.client_config()));
    assert_ne!(third.conn.peer_certificates(), first.conn.peer_certificates());
}

#[test]
fn xep_0198_a_client_is_told_to_come_back_to_the_door_with_starttls_if_it_is_there() {
    let site = Site::start(1);
    let config = Arc::new(site.client_config());
    for ((mut stream, _), told) in [(site.connect_by_start_tls(&config), true), (site.connect(&config), false)] {
        assert!(log_in_at_once(&mut stream, "PLAIN", b"\0alice\0pencil", "").starts_with("<success "));
        stream.write_all(b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>").unwrap();
        until(&mut stream, "<enabled ");
        let enabled = until(&mut stream, ">");
        assert_eq!(enabled.contains(" location='node1.example.org:5222'"), told, "{enabled}");
    }
}

/// A certificate that is signed by its own key, of this kind, and the key.
fn signed_by(algorithm: &'static rcgen::SignatureAlgorithm) -> String {
    let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    certificate.pem() + &key.serialize_pem()
}

/// What a client binds its log-in to.
type Kind = fn(&Stream) -> Vec<u8>;
type Data = dyn Fn(&Stream) -> Vec<u8>;

/// The server's certificate as its peer has seen it.
fn seen<D: Digest>(stream: &Stream) -> Vec<u8> {
    D::digest(&stream.conn.peer_certificates().unwrap()[0]).to_vec()
}

#[test]
fn rfc_5929_a_log_in_bound_to_the_certificate_holds_by_both_versions_and_each_hash() {
    let kinds: [(_, Kind); 3] = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, seen::<Sha256>),
        (&rcgen::PKCS_ECDSA_P384_SHA384, seen::<Sha384>),
        (&rcgen::PKCS_ECDSA_P521_SHA512, seen::<Sha512>),
    ];
    for cores in [1, 2] {
        let site = Site::start(cores);
        for (algorithm, end_point) in kinds {
            site.take(&signed_by(algorithm));
            for (version, expected) in [(&TLS12, &BOTH[1..]), (&TLS13, &BOTH)] {
                let config = Arc::new(client_config(&[version], site.roots()));
                let tries = |hash, kind: &str, data: &Data| {
                    let (mut stream, features) = site.connect(&config);
                    assert!(features.contains(&format!("urn:xmpp:sasl-cb:0'>{}</", listed(expected))), "{features}");
                    let data = data(&stream);
                    log_in(&mut stream, hash, (kind, &data))
                };
                for hash in [Hash::Sha1, Hash::Sha256] {
                    assert!(tries(hash, END_POINT, &end_point).starts_with("<success"), "{algorithm:?} {version:?}");
                }
                let wrong: [(&str, &Data); 5] = [
                    (END_POINT, &|_| Vec::new()),
                    (END_POINT, &|_| b"of somebody in between".to_vec()),
                    (END_POINT, &|stream| exporter(stream).to_vec()),
                    (EXPORTER, &end_point),
                    ("tls-unique", &end_point),
                ];
                for (kind, data) in wrong {
                    let refused = tries(Hash::Sha256, kind, data);
                    assert!(refused.starts_with("<failure") && refused.contains("<not-authorized/>"), "{kind}: {refused}");
                }
                let bound = tries(Hash::Sha256, EXPORTER, &|stream| exporter(stream).to_vec());
                assert_eq!(bound.starts_with("<success"), version.version == TLS13.version, "{bound}");
            }
        }
    }
}

#[test]
fn rfc_5929_a_certificate_without_a_hash_is_nothing_to_be_bound_to() {
    let site = Site::start(1);
    site.take(&signed_by(&rcgen::PKCS_ED25519));
    let (mut stream, features) = site.connect(&Arc::new(site.client_config()));
    assert!(features.contains(&format!("urn:xmpp:sasl-cb:0'>{}</", listed(&[EXPORTER]))), "{features}");
    assert!(log_in_by_exporter(&mut stream, Hash::Sha256).starts_with("<success"));
    let (_, features) = site.connect(&Arc::new(client_config(&[&TLS12], site.roots())));
    assert!(features.contains("SCRAM-SHA-256<") && !features.contains("-PLUS") && !features.contains("sasl-cb"), "{features}");
}

#[test]
fn rfc_5929_after_a_reload_old_sessions_keep_their_certificate_and_nobody_resumes_behind_another() {
    for version in [&TLS12, &TLS13] {
        let site = Site::start(1);
        let next = signed_by(&rcgen::PKCS_ECDSA_P384_SHA384);
        let mut roots = site.roots();
        roots.add(CertificateDer::from_pem_slice(next.as_bytes()).unwrap()).unwrap();
        let config = Arc::new(client_config(&[version], roots));
        let (mut first, _) = site.connect(&config);
        let (mut second, _) = site.connect(&config);
        assert_eq!(second.conn.handshake_kind(), Some(HandshakeKind::Resumed));
        site.take(&next);
        let old = seen::<Sha256>(&first);
        for stream in [&mut first, &mut second] {
            assert!(log_in(stream, Hash::Sha256, (END_POINT, &old)).starts_with("<success"), "{version:?}");
        }
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (mut stream, _) = site.connect(&config);
            assert_eq!(stream.conn.handshake_kind(), Some(expected), "{version:?}");
            assert!(log_in(&mut stream, Hash::Sha256, (END_POINT, &old)).contains("<not-authorized/>"));
            let new = seen::<Sha384>(&stream);
            assert!(log_in(&mut stream, Hash::Sha256, (END_POINT, &new)).starts_with("<success"), "{version:?}");
        }
    }
}

/// What `openssl s_client` says, on both its outputs, when this is typed.
fn openssl(site: &Site, door: Speaks, options: &[&str], typed: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &site.address(door).to_string(), "-verify_return_error", "-CAfile"]);
    command.arg(site.certificate()).args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("openssl is installed");
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn openssl_shakes_hands_by_both_versions_at_both_doors() {
    let site = Site::start(1);
    let start_tls = ["-starttls", "xmpp", "-xmpphost", "localhost", "-ign_eof"];
    let stream = format!("{OPEN}</stream:stream>");
    for (version, protocol) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        for (door, options) in [(Speaks::Xmpp, &start_tls[..]), (Speaks::Xmpps, &["-alpn", "xmpp-client", "-ign_eof"])] {
            let said = openssl(&site, door, &[options, &[version]].concat(), &stream);
            assert!(said.contains("Verify return code: 0 (ok)") && said.contains(protocol), "{said}");
            assert!(said.contains("SCRAM-SHA-256<") && said.contains("</stream:stream>"), "{said}");
            assert!(said.contains("SCRAM-SHA-256-PLUS") && said.contains(&listed(&[END_POINT])), "{said}");
            // OpenSSL and others don't agree on the exporter of TLS 1.2 without a context.
            assert_eq!(said.contains(EXPORTER), version == "-tls1_3", "{said}");
            assert!(door == Speaks::Xmpp || said.contains("ALPN protocol: xmpp-client"), "{said}");
        }
    }
    for old in ["-tls1_1", "-tls1"] {
        let said = openssl(&site, Speaks::Xmpps, &[old, "-cipher", "DEFAULT@SECLEVEL=0"], "");
        assert!(said.contains("SSL alert number") || said.contains("no protocols available"), "{old}: {said}");
    }
    let wrong = openssl(&site, Speaks::Xmpps, &["-alpn", "h2"], "");
    assert!(wrong.contains("alert no application protocol"), "{wrong}");
}

#[test]
fn renegotiation_is_refused_and_nobody_else_feels_it() {
    let site = Site::start(1);
    let (mut bystander, _) = site.connect(&Arc::new(site.client_config()));
    let said = openssl(&site, Speaks::Xmpps, &["-tls1_2"], "R\n");
    assert!(said.contains("RENEGOTIATING") && said.contains("no renegotiation"), "{said}");
    assert!(log_in_by_exporter(&mut bystander, Hash::Sha256).starts_with("<success"));
}

/// More hellos than a turn may answer come at once: all are answered, and somebody who is in already waits for none of them.
#[test]
fn a_storm_of_handshakes_is_worked_off() {
    let site = Site::start(1);
    let config = Arc::new(site.client_config());
    let (mut bystander, _) = site.connect(&config);
    let mut fresh = site.client_config();
    fresh.resumption = rustls::client::Resumption::disabled();
    let fresh = Arc::new(fresh);
    let storm = (0..100).map(|_| {
        let client = ClientConnection::new(fresh.clone(), ServerName::try_from("localhost").unwrap()).unwrap();
        let mut stream = StreamOwned::new(client, TcpStream::connect(site.address(Speaks::Xmpps)).unwrap());
        stream.sock.set_read_timeout(Some(LONG)).unwrap();
        stream.conn.write_tls(&mut stream.sock).unwrap();
        stream
    });
    let storm: Vec<Stream> = storm.collect();
    assert!(log_in_by_exporter(&mut bystander, Hash::Sha256).starts_with("<success"));
    for mut stream in storm {
        stream.write_all(OPEN.as_bytes()).unwrap();
        assert!(until(&mut stream, "</stream:features>").contains("SCRAM-SHA-1-PLUS"));
    }
}

#[test]
fn garbage_and_abandoned_handshakes_leave_others_alone() {
    let site = Site::start(1);
    let config = Arc::new(site.client_config());
    let (mut bystander, _) = site.connect(&config);
    let mut hello = Vec::new();
    let mut client = ClientConnection::new(config.clone(), ServerName::try_from("localhost").unwrap()).unwrap();
    client.write_tls(&mut hello).unwrap();
    for round in 0..200 {
        let mut socket = TcpStream::connect(site.address(Speaks::Xmpps)).unwrap();
        // A whole hello, half of one, nothing, or something else: then they are gone.
        socket.write_all([&hello[..], &hello[..100], b"", OPEN.as_bytes()][round % 4]).unwrap();
    }
    let mut socket = TcpStream::connect(site.address(Speaks::Xmpps)).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket.write_all(OPEN.as_bytes()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    assert_eq!((answer[0], answer.len()), (21, 7), "an alert, and the end: {answer:02x?}");
    assert!(log_in_by_exporter(&mut bystander, Hash::Sha1).starts_with("<success"));
}
