//! The node's secrets: keys of tokens from the configuration, or made once and kept in the data directory.

use crate::base::config::LogIn;
use crate::base::secrets::Secrets;
use crate::front::token::{KeyTooShort, Keys};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The file in the data directory: one key per line, `name = key`.
const FILE: &str = "keys";

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key file {path} can't be {what}: {source}. Check that the path is right and that this user may use it")]
    File { path: String, what: &'static str, source: io::Error },
    #[error("the key file {path} is damaged: it has no {missing}. Restore it from a backup, or delete it to have new keys made")]
    Damaged { path: String, missing: &'static str },
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    #[error(transparent)]
    Short(#[from] KeyTooShort),
}

/// 256 bits from the operating system.
pub fn system_seed() -> Result<[u8; 32], KeyError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| KeyError::Random(error.to_string()))?;
    Ok(seed)
}

/// All keys of a node.
pub struct NodeKeys {
    pub token: Keys,
    pub trunk: Keys,
    pub decoys: [u8; 32],
}

/// The keys that are made when the configuration has none.
struct Made {
    token: String,
    trunk: String,
    decoys: String,
}

impl NodeKeys {
    /// Keys for a node that keeps nothing.
    pub fn from_config(login: &LogIn, secrets: &mut Secrets) -> Result<NodeKeys, KeyError> {
        NodeKeys::join(login, &Made::new(secrets))
    }

    /// Keys for a node with a data directory, which exists and is ours.
    pub fn in_dir(login: &LogIn, dir: &Path, secrets: &mut Secrets) -> Result<NodeKeys, KeyError> {
        NodeKeys::join(login, &Made::in_dir(dir, secrets)?)
    }

    /// The same for tools that only read: an error when no node has made the keys yet.
    pub fn read(login: &LogIn, dir: &Path) -> Result<NodeKeys, KeyError> {
        NodeKeys::join(login, &Made::read(dir)?)
    }

    /// A number that stays with the data directory; where nothing is kept, with the process.
    pub fn identity(&self) -> u64 {
        let hash = Sha256::digest([b"identity", &self.decoys[..]].concat());
        u64::from_le_bytes(*hash.first_chunk().expect("a hash has 32 bytes"))
    }

    fn join(login: &LogIn, made: &Made) -> Result<NodeKeys, KeyError> {
        let keys = |configured: &[crate::base::config::Secret], made: &str| match configured {
            [] => Keys::new([made]),
            configured => Keys::new(configured.iter().map(|secret| secret.reveal())),
        };
        let mut decoys = [0; 32];
        for (to, from) in decoys.iter_mut().zip(made.decoys.bytes()) {
            *to = from;
        }
        Ok(NodeKeys { token: keys(&login.token_keys, &made.token)?, trunk: keys(&login.trunk_keys, &made.trunk)?, decoys })
    }
}

impl Made {
    fn new(secrets: &mut Secrets) -> Made {
        let mut key = || {
            let bytes = [secrets.bytes16(), secrets.bytes16()].concat();
            bytes.iter().fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").expect("a string takes all");
                text
            })
        };
        Made { token: key(), trunk: key(), decoys: key() }
    }

    fn in_dir(dir: &Path, secrets: &mut Secrets) -> Result<Made, KeyError> {
        let path = dir.join(FILE);
        if path.exists() {
            return Made::read(dir);
        }
        let made = Made::new(secrets);
        let text = format!("token = {}\ntrunk = {}\ndecoys = {}\n", made.token, made.trunk, made.decoys);
        write_secret(&path, &text).map_err(file_error(&path, "written"))?;
        Ok(made)
    }

    fn read(dir: &Path) -> Result<Made, KeyError> {
        let path = dir.join(FILE);
        let text = fs::read_to_string(&path).map_err(file_error(&path, "read"))?;
        let find = |name: &'static str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
            line.map(str::to_owned).ok_or_else(|| KeyError::Damaged { path: path.display().to_string(), missing: name })
        };
        Ok(Made { token: find("token")?, trunk: find("trunk")?, decoys: find("decoys")? })
    }
}

/// Writes a file that only this user may read, whole or not at all.
pub(super) fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_added_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

fn file_error<'a>(path: &'a Path, what: &'static str) -> impl Fn(io::Error) -> KeyError + 'a {
    move |source| KeyError::File { path: path.display().to_string(), what, source }
}
