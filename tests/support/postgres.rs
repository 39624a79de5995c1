//! A PostgreSQL server of a test's own: in a temporary directory, on a socket there, gone with the test program.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Longer than a server takes to start on a loaded machine.
const LONG: Duration = Duration::from_secs(60);

/// Keeps the server running until its standard input ends, which it does with the test program, however that ends.
const KEEPER: &str = r#"
"$1/postgres" -D "$2/data" -k "$2" -h '' -c max_connections=200 -c log_min_messages=fatal $3 >"$2/log" 2>&1 &
pid=$!
echo $pid
cat >/dev/null
kill -QUIT $pid
wait
rm -rf "$2""#;

pub struct Server {
    bin: PathBuf,
    dir: PathBuf,
    options: String,
    port: u16,
    owner: Option<(u32, u32)>,
    running: Mutex<Option<Running>>,
}

struct Running {
    keeper: Child,
    input: ChildStdin,
    postmaster: u32,
}

/// The one server of a test program; `None`, with the reason printed: there is no PostgreSQL here.
pub fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(|| Server::start("-c fsync=off")).as_ref()
}

/// Where Debian puts the programs, the newest version first; or the path.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok().into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut places: Vec<PathBuf> = versions.map(|path| path.join("bin")).collect();
    places.sort();
    let in_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    places.into_iter().rev().chain(in_path).find(|place| place.join("initdb").exists() && place.join("postgres").exists())
}

/// PostgreSQL does not run as root: who it is then.
fn owner() -> Option<(u32, u32)> {
    if !nix_is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("there are users");
    let found = ["postgres:", "nobody:"].iter().find_map(|name| users.lines().find(|line| line.starts_with(name)));
    let fields: Vec<&str> = found.expect("one of them is there").split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

fn nix_is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

impl Server {
    /// Makes a server and starts it. `options`: as on its command line.
    pub fn start(options: &str) -> Option<Server> {
        Server::make(options, 5432, None)
    }

    /// One that speaks TLS, by this certificate with its key, at a port of 127.0.0.1. It syncs nothing.
    pub fn start_with_tls(pem: &str) -> Option<Server> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let tls = "-c ssl=on -c ssl_cert_file=own.pem -c ssl_key_file=own.pem";
        Server::make(&format!("-c fsync=off -c listen_addresses=127.0.0.1 -c port={port} {tls}"), port, Some(pem))
    }

    fn make(options: &str, port: u16, pem: Option<&str>) -> Option<Server> {
        let Some(bin) = programs() else {
            eprintln!("skipped: there is no PostgreSQL here: install the package postgresql");
            return None;
        };
        let dir = tempfile::Builder::new().prefix("pg").tempdir().unwrap().keep();
        let owner = owner();
        if let Some((user, group)) = owner {
            std::os::unix::fs::chown(&dir, Some(user), Some(group)).unwrap();
        }
        let server = Server { bin, dir, options: options.to_owned(), port, owner, running: Mutex::new(None) };
        let mut initdb = server.command(&server.bin.join("initdb"));
        initdb
            .args(["--no-sync", "-A", "trust", "-U", "fanal", "-E", "UTF8", "--locale", "C.UTF-8", "-D"])
            .arg(server.dir.join("data"));
        let made = initdb.stdin(Stdio::null()).output().expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        if let Some(pem) = pem {
            let file = server.dir.join("data/own.pem");
            std::fs::write(&file, pem).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            if let Some((user, group)) = owner {
                std::os::unix::fs::chown(&file, Some(user), Some(group)).unwrap();
            }
        }
        server.run();
        Some(server)
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command.current_dir(&self.dir);
        command
    }

    /// Starts it, again.
    pub fn run(&self) {
        let mut keeper = self.command(Path::new("sh"));
        keeper.args(["-c", KEEPER, "sh"]).arg(&self.bin).arg(&self.dir).arg(&self.options);
        let mut keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell runs");
        let mut said = keeper.stdout.take().unwrap();
        let (mut line, mut byte) = (String::new(), [0]);
        while said.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(char::from(byte[0]));
        }
        let postmaster = line.parse().expect("its number");
        let input = keeper.stdin.take().unwrap();
        *self.running.lock().unwrap() = Some(Running { keeper, input, postmaster });
        let end = Instant::now() + LONG;
        while query(&self.url("postgres"), "SELECT 1").is_err() {
            assert!(Instant::now() < end, "{}", std::fs::read_to_string(self.dir.join("log")).unwrap_or_default());
            std::thread::yield_now();
        }
    }

    /// kill -9 of all of it.
    pub fn kill(&self) {
        let mut running = self.running.lock().unwrap().take().expect("it runs");
        // The keeper first, or it would take the directory along.
        running.keeper.kill().unwrap();
        running.keeper.wait().unwrap();
        drop(running.input);
        let mut doomed = children(running.postmaster);
        doomed.insert(0, running.postmaster);
        for process in &doomed {
            kill(*process);
        }
        let end = Instant::now() + LONG;
        while doomed.iter().any(|process| is_there(*process)) {
            assert!(Instant::now() < end, "a killed server goes");
            std::thread::yield_now();
        }
        // Dead, though perhaps not buried: the next server must not take it for living.
        for lock in ["data/postmaster.pid".to_owned(), format!(".s.PGSQL.{}.lock", self.port)] {
            std::fs::remove_file(self.dir.join(lock)).unwrap();
        }
    }

    /// Where it listens, apart from its socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join(format!(".s.PGSQL.{}", self.port))
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://fanal@{}:{}/{database}", self.dir.to_str().unwrap().replace('/', "%2F"), self.port)
    }

    /// A new database's name.
    pub fn new_database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
        query(&self.url("postgres"), &format!("CREATE DATABASE {name}")).unwrap();
        name
    }

    pub fn new_url(&self) -> String {
        self.url(&self.new_database())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.lock().unwrap().take() {
            drop(running.input);
            _ = running.keeper.wait();
        }
        _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn children(parent: u32) -> Vec<u32> {
    let is_child = |process: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)) == Some(&parent.to_string())
    };
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(is_child).collect()
}

fn kill(process: u32) {
    // It may have ended by itself.
    _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(process as i32), nix::sys::signal::Signal::SIGKILL);
}

fn is_there(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim_start().starts_with('Z'))
}

/// Runs SQL as an operator would: the text of each row's fields.
pub fn query(url: &str, sql: &str) -> Result<Vec<Vec<String>>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.map_err(|error| error.to_string())?;
        let driver = tokio::spawn(connection);
        let messages = client.simple_query(sql).await.map_err(|error| format!("{error:?}"))?;
        let mut rows = Vec::new();
        for message in messages {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
                rows.push((0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect());
            }
        }
        drop(client);
        _ = driver.await;
        Ok(rows)
    })
}

/// What a way to the server does with what passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Way {
    Open,
    /// The commit does not reach the server: the connection breaks.
    CutBeforeCommit,
    /// It does, and its answer does not come back.
    CutAfterCommit,
    /// Nobody is there.
    Closed,
    /// Nothing comes through, and no connection ends.
    Stalled,
}

const WAYS: [Way; 5] = [Way::Open, Way::CutBeforeCommit, Way::CutAfterCommit, Way::Closed, Way::Stalled];

/// A way to a server that a test can cut.
pub struct Proxy {
    pub address: SocketAddr,
    way: Arc<AtomicU8>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    pub fn to(server: &Server) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy =
            Proxy { address: listener.local_addr().unwrap(), way: Arc::new(AtomicU8::new(Way::Open as u8)), open: Arc::default() };
        let (way, open, socket) = (proxy.way.clone(), proxy.open.clone(), server.socket());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = UnixStream::connect(&socket) else { continue };
                if WAYS[usize::from(way.load(Ordering::SeqCst))] == Way::Closed {
                    continue;
                }
                open.lock().unwrap().push(client.try_clone().unwrap());
                let (from, to, seen) = (client.try_clone().unwrap(), server.try_clone().unwrap(), way.clone());
                let (back, out, seen_back) = (server, client, way.clone());
                std::thread::spawn(move || forward(from, to, &seen));
                std::thread::spawn(move || back_again(back, out, &seen_back));
            }
        });
        proxy
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://fanal@{}/{database}", self.address)
    }

    pub fn is(&self, way: Way) -> bool {
        self.way.load(Ordering::SeqCst) == way as u8
    }

    /// From now on. Closing ends the connections there are.
    pub fn set(&self, way: Way) {
        self.way.store(way as u8, Ordering::SeqCst);
        if way == Way::Closed {
            self.open.lock().unwrap().drain(..).for_each(|socket| _ = socket.shutdown(std::net::Shutdown::Both));
        }
    }
}

fn now(way: &AtomicU8) -> Way {
    while WAYS[usize::from(way.load(Ordering::SeqCst))] == Way::Stalled {
        std::thread::yield_now();
    }
    WAYS[usize::from(way.load(Ordering::SeqCst))]
}

/// From the client to the server.
fn forward(mut from: TcpStream, mut to: UnixStream, way: &AtomicU8) {
    let mut bytes = [0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let is_commit = bytes[..count].windows(7).any(|part| part == b"COMMIT\0");
        match now(way) {
            Way::CutBeforeCommit if is_commit => {
                way.store(Way::Closed as u8, Ordering::SeqCst);
                break;
            }
            Way::CutAfterCommit if is_commit => {
                // What the server answers from here on is dropped.
                way.store(Way::Closed as u8, Ordering::SeqCst);
                _ = to.write_all(&bytes[..count]);
                _ = to.set_read_timeout(Some(LONG));
                break;
            }
            _ => {}
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    _ = from.shutdown(std::net::Shutdown::Both);
    _ = to.shutdown(std::net::Shutdown::Write);
}

fn back_again(mut from: UnixStream, mut to: TcpStream, way: &AtomicU8) {
    let mut bytes = [0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if now(way) == Way::Closed || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    _ = to.shutdown(std::net::Shutdown::Both);
    _ = from.shutdown(std::net::Shutdown::Both);
}
