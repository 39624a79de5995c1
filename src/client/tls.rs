//! A client's TLS: how it knows the server, and the socket that it speaks through, private or not.
//!
//! Lives on: the thread of its owner. Serves C8. Nothing of the system's is asked: roots come from a file.

use crate::base::trust::{anybody, whoever_has};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, ServerName};
use rustls::{ClientConfig, ClientConnection, Error, ProtocolVersion, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use thiserror::Error;

/// What native frames are called in a handshake (ALPN).
const APPLICATION: &[u8] = b"fanal";
/// RFC 9266 4.2.
const BINDING: &[u8] = b"EXPORTER-Channel-Binding";

/// Why a client can't speak TLS. Each names the thing and the fix.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("{path} can't be read as PEM: {why}. Put the certificate there (BEGIN CERTIFICATE)")]
    File { path: String, why: String },
    #[error("{0:?} is no domain that a certificate can name")]
    Domain(String),
    #[error("TLS can't be set up: {0}")]
    Library(#[from] Error),
}

/// How a client knows that it speaks with the right server.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// The server's certificate names `domain`, the part of its users' JIDs behind the @, and one of the roots in this file
    /// vouches for it.
    pub fn with_roots(domain: &str, roots: &Path) -> Result<Tls, TlsError> {
        let name = ServerName::try_from(domain.to_owned()).map_err(|_| TlsError::Domain(domain.to_owned()))?;
        let mut store = RootCertStore::empty();
        for root in certificates(roots)? {
            store.add(root)?;
        }
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider());
        let verifier = builder.build().map_err(|error| file(roots, error))?;
        Tls::verified(verifier, name)
    }

    /// The server has the first certificate in this file, whatever it says: for one that a node has signed itself.
    pub fn with_certificate(path: &Path) -> Result<Tls, TlsError> {
        Tls::verified(whoever_has(certificates(path)?.swap_remove(0)), nameless())
    }

    /// Anybody may be the server, and so may everybody on the way to it: for tests.
    pub fn insecure() -> Result<Tls, TlsError> {
        Tls::verified(anybody(), nameless())
    }

    fn verified(verifier: Arc<dyn ServerCertVerifier>, name: ServerName<'static>) -> Result<Tls, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.alpn_protocols = vec![APPLICATION.to_vec()];
        Ok(Tls { config: Arc::new(config), name })
    }

    /// Shakes hands. The socket's timeouts hold.
    pub(super) fn begin(&self, mut socket: TcpStream) -> io::Result<Socket> {
        let mut session = ClientConnection::new(self.config.clone(), self.name.clone()).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Socket::Private(Box::new(StreamOwned::new(session, socket))))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// For certificates that are not looked at for names: an address isn't told to the server.
fn nameless() -> ServerName<'static> {
    ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([127, 0, 0, 1])))
}

fn file(path: &Path, why: impl ToString) -> TlsError {
    TlsError::File { path: path.display().to_string(), why: why.to_string() }
}

/// At least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match all {
        Ok(all) if all.is_empty() => Err(file(path, "it holds no certificate")),
        all => all.map_err(|why| file(path, why)),
    }
}

/// What a connection speaks through.
pub(super) enum Socket {
    Clear(TcpStream),
    Private(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Socket::Clear(socket) => socket,
            Socket::Private(stream) => &stream.sock,
        }
    }

    /// What SCRAM's -PLUS mechanisms bind to (RFC 9266 tls-exporter); in TLS 1.3 only, as at the server.
    pub fn binding(&self) -> Option<[u8; 32]> {
        let Socket::Private(stream) = self else { return None };
        let is_new = stream.conn.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        is_new.then(|| stream.conn.export_keying_material([0; 32], BINDING, Some(&[])).ok()).flatten()
    }
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Clear(socket) => socket.read(into),
            Socket::Private(stream) => stream.read(into),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Clear(socket) => socket.write(bytes),
            Socket::Private(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Socket::Clear(socket) => socket.flush(),
            Socket::Private(stream) => stream.flush(),
        }
    }
}
