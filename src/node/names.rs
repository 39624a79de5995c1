//! Looking a name up, in time: the system's own way may take as long as it likes, and can't be told to stop.
//!
//! Lives on: whoever asks, and a thread of its own while the system looks. Invariants: nobody waits longer than he wants to;
//! however many ask, and however long the system takes, it looks once at a time; nothing is kept for later, since the system does
//! that.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

type Found = Result<Vec<SocketAddr>, String>;
type LookUp = Box<dyn Fn() -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// One name, or address.
pub(super) struct Name {
    /// It is an address: there is nothing to look up.
    known: Option<SocketAddr>,
    search: Arc<Search>,
}

struct Search {
    look_up: LookUp,
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Default)]
struct State {
    /// Somebody looks.
    under_way: bool,
    /// How often somebody has looked, and what the last one has found.
    rounds: u64,
    found: Option<Found>,
}

impl Name {
    pub fn new(host: &str, port: u16) -> Name {
        let known = host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port));
        let host = host.to_owned();
        Name { known, ..Name::by(Box::new(move || Ok((host.as_str(), port).to_socket_addrs()?.collect()))) }
    }

    fn by(look_up: LookUp) -> Name {
        Name { known: None, search: Arc::new(Search { look_up, state: Mutex::default(), done: Condvar::new() }) }
    }

    /// Its addresses, as they are now.
    ///
    /// Errors: the system knows none, has no thread to look with, or takes longer than `until`.
    pub fn addresses(&self, until: Instant) -> io::Result<Vec<SocketAddr>> {
        if let Some(address) = self.known {
            return Ok(vec![address]);
        }
        let search = &self.search;
        let mut state = search.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.under_way {
            let search = search.clone();
            std::thread::Builder::new().name("fanal-name".into()).spawn(move || search.run())?;
            state.under_way = true;
        }
        let round = state.rounds;
        while state.rounds == round {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "looking up its name took too long"));
            }
            state = search.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.found.clone().expect("a round has found something or failed").map_err(io::Error::other)
    }
}

impl Search {
    fn run(&self) {
        let found = (self.look_up)().map_err(|error| error.to_string());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { under_way: false, rounds: state.rounds + 1, found: Some(found) };
        self.done.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(60);

    fn soon(wait: Duration) -> Instant {
        Instant::now() + wait
    }

    #[test]
    fn an_address_is_looked_up_nowhere() {
        for (host, address) in [("192.0.2.1", "192.0.2.1:80"), ("2001:db8::1", "[2001:db8::1]:80")] {
            // There is no time to look.
            assert_eq!(Name::new(host, 80).addresses(Instant::now()).unwrap(), [address.parse().unwrap()]);
        }
    }

    #[test]
    fn a_name_is_looked_up_each_time() {
        assert!(Name::new("localhost", 80).addresses(soon(LONG)).unwrap().iter().all(|address| address.ip().is_loopback()));
        let calls = AtomicUsize::new(0);
        let name = Name::by(Box::new(move || match calls.fetch_add(1, SeqCst) {
            0 => Err(io::Error::other("not yet")),
            port => Ok(vec![SocketAddr::from(([127, 0, 0, 1], port as u16))]),
        }));
        assert_eq!(name.addresses(soon(LONG)).unwrap_err().to_string(), "not yet");
        for port in [1, 2] {
            assert_eq!(name.addresses(soon(LONG)).unwrap()[0].port(), port);
        }
    }

    #[test]
    fn nobody_waits_longer_than_he_wants_and_the_system_is_asked_once_at_a_time() {
        let (release, waits) = channel::<()>();
        let (waits, looking) = (Mutex::new(waits), Arc::new(AtomicUsize::new(0)));
        let counted = looking.clone();
        let name = Name::by(Box::new(move || {
            counted.fetch_add(1, SeqCst);
            waits.lock().unwrap().recv().map_err(io::Error::other)?;
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], 80))])
        }));
        for _ in 0..10 {
            let late = name.addresses(soon(Duration::from_millis(1))).unwrap_err();
            assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        }
        release.send(()).unwrap();
        // Of the round under way, or of the next one if that was over already.
        release.send(()).unwrap();
        assert_eq!(name.addresses(soon(LONG)).unwrap().len(), 1);
        assert!(looking.load(SeqCst) <= 2);
    }
}
