//! The keys that sign log-in tokens when the configuration names none: made once, kept in the data directory.

use crate::failure::Failure;
use fanal::base::config::{Config, Secret};
use std::fmt::Write as _;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Puts a key where the configuration has none. Gives a line to tell for each.
pub fn fill_in(config: &mut Config) -> Result<Vec<String>, Failure> {
    let data = config.node.data.clone();
    let mut told = Vec::new();
    let keys = [
        ("login.token_keys", "token.key", &mut config.login.token_keys),
        ("login.trunk_keys", "trunk.key", &mut config.login.trunk_keys),
    ];
    for (name, file, keys) in keys {
        if keys.is_empty() {
            let path = data.join(file);
            keys.push(read_or_make(&data, &path)?);
            told.push(format!("{name} is not configured: using the random key kept in {}", path.display()));
        }
    }
    Ok(told)
}

fn read_or_make(data: &Path, path: &Path) -> Result<Secret, Failure> {
    let cannot = |what: &str, why: &dyn std::fmt::Display| {
        Failure::line(format!("{}: can't {what} the key: {why}. Check the data directory, or configure a key", path.display()))
    };
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make(data, path).map_err(|error| cannot("make", &error))?;
            std::fs::read_to_string(path).map_err(|error| cannot("read", &error))?
        }
        text => text.map_err(|error| cannot("read", &error))?,
    };
    Secret::new(text.trim()).ok_or_else(|| cannot("use", &"the file is too short: delete it to have a new key made"))
}

/// Makes the file whole or not at all: two commands at once agree on one key.
fn make(data: &Path, path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(data)?;
    let mut random = [0u8; 32];
    getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string()))?;
    let key = random.iter().fold(String::new(), |mut key, byte| {
        let _ = write!(key, "{byte:02x}");
        key
    });
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    writeln!(file, "{key}")?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&draft, path);
    std::fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}
