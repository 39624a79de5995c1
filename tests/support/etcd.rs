//! A real etcd, and ways to it that can be cut.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An etcd of one member, with its data in a directory of its own.
pub struct Server {
    process: Child,
    pub dir: tempfile::TempDir,
    client: u16,
    peer: u16,
}

impl Server {
    /// `None`: there is no etcd here.
    pub fn start() -> Option<Server> {
        Server::is_there().then(|| {
            let (dir, client, peer) = (tempfile::tempdir().unwrap(), free_port(), free_port());
            let server = Server { process: Server::run(dir.path(), client, peer), dir, client, peer };
            server.is_up();
            server
        })
    }

    /// One that is asked inside TLS, by whoever shows a certificate: `ca.pem`, `own.pem` and `own.key` in its directory.
    pub fn start_private() -> Option<Server> {
        Server::is_there().then(|| {
            let (dir, client, peer) = (tempfile::tempdir().unwrap(), free_port(), free_port());
            certify(dir.path());
            Server { process: Server::run(dir.path(), client, peer), dir, client, peer }
        })
    }

    fn is_there() -> bool {
        if std::process::Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("skipped: there is no etcd here; install the package etcd-server");
            return false;
        }
        true
    }

    fn run(dir: &std::path::Path, client: u16, peer: u16) -> Child {
        let own = ["ca.pem", "own.pem", "own.key"].map(|file| dir.join(file).to_str().unwrap().to_owned());
        let is_private = dir.join("ca.pem").exists();
        let scheme = if is_private { "https" } else { "http" };
        let (client, peer) = (format!("{scheme}://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let files = ["--client-cert-auth", "--trusted-ca-file", &own[0], "--cert-file", &own[1], "--key-file", &own[2]];
        let log = std::fs::File::create(dir.join("log")).unwrap();
        // A quick election, so that leases of a second can be had.
        std::process::Command::new("etcd")
            .args(["--data-dir", dir.join("data").to_str().unwrap(), "--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args(files.into_iter().filter(|_| is_private))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.client))
    }

    /// The answer to a call; `None`: it can't be had.
    fn call(&self, path: &str, body: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address()).ok()?;
        write!(stream, "POST /v3/{path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.contains("200 OK").then_some(answer)
    }

    fn is_up(&self) {
        let from = Instant::now();
        while self.call("kv/range", "{\"key\":\"YQ==\"}").is_none() {
            assert!(from.elapsed() < PATIENCE, "etcd does not start: {:?}", std::fs::read_to_string(self.dir.path().join("log")));
            std::thread::yield_now();
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id() as i32), signal).unwrap();
    }

    pub fn kill_and_restart(&mut self, meanwhile: impl FnOnce()) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        meanwhile();
        self.process = Server::run(self.dir.path(), self.client, self.peer);
        self.is_up();
    }

    /// Forgets everything but the newest of each key.
    pub fn compact(&self) {
        let put = self.call("kv/put", "{\"key\":\"YQ==\"}").unwrap();
        let revision = put.split("\"revision\":\"").nth(1).unwrap().split('"').next().unwrap();
        self.call("kv/compaction", &format!("{{\"revision\":\"{revision}\",\"physical\":true}}")).unwrap();
    }
}

/// Makes an authority, and a certificate for both ends.
fn certify(dir: &std::path::Path) {
    let keep = |file: &str, pem: String| std::fs::write(dir.join(file), pem).unwrap();
    let (key, own) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    keep("ca.pem", ca.self_signed(&key).unwrap().pem());
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    keep("own.pem", params.signed_by(&own, &Issuer::new(ca, key)).unwrap().pem());
    keep("own.key", own.serialize_pem());
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// A way to etcd that can be cut: then it takes everything and gives nothing.
pub struct Way {
    pub address: SocketAddr,
    cut: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Way {
    pub fn to(server: SocketAddr) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, streams) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let way = Way { address, cut: cut.clone(), streams: streams.clone() };
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(server) else { continue };
                streams.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                let (client_in, server_in) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (cut, cut_too) = (cut.clone(), cut.clone());
                std::thread::spawn(move || carry(client_in, server, &cut));
                std::thread::spawn(move || carry(server_in, client, &cut_too));
            }
        });
        way
    }

    pub fn cut(&self) {
        self.cut.store(true, SeqCst);
    }

    pub fn heal(&self) {
        self.cut.store(false, SeqCst);
        for stream in self.streams.lock().unwrap().drain(..) {
            _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool) {
    let mut bytes = [0; 4_096];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if !cut.load(SeqCst) && to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    // Whoever waits on a way that is cut is not even told that it has ended.
    if !cut.load(SeqCst) {
        _ = to.shutdown(Shutdown::Both);
    }
}
