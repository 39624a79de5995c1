//! The binary as a child process.

use super::LONG;
use fanal::base::config::{Config, LogIn};
use fanal::base::jid::Bare;
use fanal::base::time::WallClock;
use fanal::front::token::{Keys, Scope};
use fanal::node::keys::NodeKeys;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// A command of the binary, whatever the environment says.
pub fn fanal(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanal"));
    command.args(args).env_remove("FANAL_CONFIG").env_remove("FANAL_PASSWORD").stdin(Stdio::null());
    command
}

/// A node started by the command line, at any ports; killed when the test ends early.
pub struct Served {
    child: Child,
    data: PathBuf,
    pub native: SocketAddr,
    pub admin: SocketAddr,
    /// All of them, by name.
    pub doors: BTreeMap<String, SocketAddr>,
}

impl Served {
    /// `cores`: as many as the machine has, at most.
    pub fn start(data: &Path, cores: usize) -> Served {
        Served::start_by(fanal(&[]), data, cores)
    }

    /// With so many descriptors at most.
    pub fn start_with_descriptors(data: &Path, descriptors: usize) -> Served {
        let mut command = Command::new("prlimit");
        command.args([&format!("--nofile={descriptors}:{descriptors}"), env!("CARGO_BIN_EXE_fanal")]);
        Served::start_by(command, data, 1)
    }

    /// With a configuration file.
    pub fn start_with_config(data: &Path, cores: usize, config: &Config) -> Served {
        let file = data.with_extension("toml");
        std::fs::write(&file, toml::to_string(config).unwrap()).unwrap();
        let mut command = fanal(&[]);
        // For `log`.
        command.env("FANAL_CONFIG", file).stderr(File::create(data.with_extension("log")).unwrap());
        Served::start_by(command, data, cores)
    }

    /// What a node with a configuration file has written to stderr.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).unwrap()
    }

    fn start_by(mut command: Command, data: &Path, cores: usize) -> Served {
        let processors: Vec<String> = fanal::drive::pin::processors().iter().take(cores).map(|p| p.id.to_string()).collect();
        command.args(["serve", "--cores", &processors.join(","), "--native", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        let mut child = command.arg("--data").arg(data).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines().map(Result::unwrap);
        let door = |line: String| {
            let (name, address) = line.split_once(' ')?;
            let address = address.trim_start().trim_start_matches("http://");
            Some((name.to_owned(), address.parse().ok()?))
        };
        let doors: BTreeMap<String, SocketAddr> = lines.by_ref().take_while(|line| line != "serving").filter_map(door).collect();
        let at = |name| *doors.get(name).expect("it says where");
        Served { data: data.to_owned(), native: at("native"), admin: at("admin"), doors, child }
    }

    /// A log-in token of a user, by the keys the node has made.
    pub fn token(&self, jid: &str) -> String {
        let keys = NodeKeys::read(&LogIn::default(), &self.data).expect("a node that serves has made keys");
        let jid = Bare::new(jid).unwrap();
        keys.token.sign(Scope::User(&jid), WallClock(u64::MAX)).unwrap()
    }

    /// The same by a key that is configured.
    pub fn token_by(&self, key: &str, jid: &str) -> String {
        let keys = Keys::new([key]).unwrap();
        keys.sign(Scope::User(&Bare::new(jid).unwrap()), WallClock(u64::MAX)).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn stop(mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }

    /// kill -9: it gets no chance to do anything more.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        assert!(!self.child.wait().unwrap().success(), "it had ended by itself");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking()
            && let Ok(log) = std::fs::read_to_string(self.data.with_extension("log"))
        {
            println!("-- what the node of {} said:\n{log}", self.data.display());
        }
    }
}

/// The users who live on a node.
pub fn users(admin: SocketAddr) -> BTreeSet<String> {
    let admin = fanal::admin::client::Client::new(admin, None);
    let node = admin.cluster().unwrap().node;
    admin.users(None, 1_000, Some(node)).unwrap().users.into_iter().map(|user| user.jid).collect()
}

/// A new user whose home is on the second of these nodes, made through the first.
pub fn user_on(through: SocketAddr, node: SocketAddr, kind: &str) -> String {
    let end = Instant::now() + LONG;
    for n in 0.. {
        let jid = format!("{kind}{n}@localhost");
        // As long as the nodes have not found each other, some can't be made.
        let made = fanal::admin::client::Client::new(through, None).add_user(&jid, None).is_ok();
        if made && users(node).contains(&jid) {
            return jid;
        }
        assert!(Instant::now() < end, "it is given no users");
    }
    unreachable!("there is always another name")
}
