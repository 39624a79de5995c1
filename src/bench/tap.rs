//! What really crosses between clusters: links are led through here, and their frames read on the wire.
//!
//! Lives on: two threads for each connection that is led through. Serves G6, Z5, Z6, Z10. It is told nothing by the nodes: what it
//! counts are the frames that it sees, and inside TLS their bytes. Invariant: every byte goes on as it came, whatever it means.

use crate::presence::frame as events;
use crate::wire::complex::Unpacker;
use crate::wire::frame::{Chunk, Frames};
use crate::wire::link::{self, Frame, Purpose};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Sub;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;
/// Longest frame of a link that is read.
const FRAME_BYTES: u32 = 64 << 20;

/// What has crossed so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Crossed {
    /// Updates, each counted by itself, however they travelled.
    pub updates: u64,
    /// Of those: in complex messages.
    pub gathered: u64,
    pub complex: u64,
    /// Everything else that is no acknowledgement or ping, each counted by itself.
    pub others: u64,
    /// All bytes of the connections, in both directions, acknowledgements and pings and all.
    pub bytes: u64,
}

impl Sub for Crossed {
    type Output = Crossed;

    fn sub(self, before: Crossed) -> Crossed {
        Crossed {
            updates: self.updates - before.updates,
            gathered: self.gathered - before.gathered,
            complex: self.complex - before.complex,
            others: self.others - before.others,
            bytes: self.bytes - before.bytes,
        }
    }
}

/// The counts of all connections together.
#[derive(Default)]
struct Counts {
    sealed: bool,
    updates: AtomicU64,
    gathered: AtomicU64,
    complex: AtomicU64,
    others: AtomicU64,
    bytes: AtomicU64,
    /// What could not be read: then the counts are worth nothing.
    fault: Mutex<Option<String>>,
    /// Nothing gets from one cluster to another.
    cut: Mutex<bool>,
    healed: Condvar,
}

impl Counts {
    fn is_cut(&self) -> MutexGuard<'_, bool> {
        self.cut.lock().expect("nobody panics with it")
    }

    /// Returns when what has come between clusters may go on.
    fn wait_for_healing(&self) {
        let mut cut = self.is_cut();
        while *cut {
            cut = self.healed.wait(cut).expect("nobody panics with it");
        }
    }
}

/// Addresses that lead to others, and what has been seen there.
pub struct Taps {
    counts: Arc<Counts>,
}

impl Taps {
    /// `sealed`: what is led through is inside TLS. Then it's taken to be between clusters, and its bytes alone are counted.
    pub fn new(sealed: bool) -> Taps {
        Taps { counts: Arc::new(Counts { sealed, ..Counts::default() }) }
    }

    /// Leads whoever connects to the address it gives on to `to`, for as long as the process lasts.
    ///
    /// # Errors
    /// No address is free.
    pub fn lead_to(&self, to: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (address, counts) = (listener.local_addr()?, self.counts.clone());
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                // A node that isn't there: whoever connects finds that out as it would without us.
                let Ok(far) = TcpStream::connect(to) else { continue };
                lead(near, far, &counts);
            }
        });
        Ok(address)
    }

    /// From now on nothing gets from one cluster to another, and neither end is told.
    pub fn cut(&self) {
        *self.counts.is_cut() = true;
    }

    /// What was on its way goes on.
    pub fn heal(&self) {
        *self.counts.is_cut() = false;
        self.counts.healed.notify_all();
    }

    /// What has crossed between clusters so far.
    ///
    /// # Errors
    /// Something could not be read.
    pub fn crossed(&self) -> io::Result<Crossed> {
        let Counts { updates, gathered, complex, others, bytes, fault, .. } = &*self.counts;
        if let Some(fault) = &*fault.lock().expect("nobody panics with it") {
            return Err(io::Error::other(fault.clone()));
        }
        let [updates, gathered, complex, others, bytes] =
            [updates, gathered, complex, others, bytes].map(|count| count.load(Ordering::Relaxed));
        Ok(Crossed { updates, gathered, complex, others, bytes })
    }
}

fn lead(near: TcpStream, far: TcpStream, counts: &Arc<Counts>) {
    for (from, to) in [(near.try_clone(), far.try_clone()), (Ok(far), Ok(near))] {
        let (Ok(from), Ok(to), counts) = (from, to, counts.clone()) else { return };
        thread::spawn(move || {
            let _ = to.set_nodelay(true);
            if let Err(fault) = pass(&from, &to, &counts) {
                counts.fault.lock().expect("nobody panics with it").get_or_insert(fault);
            }
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        });
    }
}

/// Passes on what comes until one end closes. An error is something that can't be read.
fn pass(mut from: &TcpStream, mut to: &TcpStream, counts: &Counts) -> Result<(), String> {
    let mut buffer = vec![0; READ_BYTES];
    let mut reader = Reader::new(counts.sealed).map_err(|error| error.to_string())?;
    loop {
        let length = from.read(&mut buffer).unwrap_or(0);
        let bytes = &buffer[..length];
        reader.read(bytes, counts)?;
        // Not even the end of a connection gets through a cut.
        if reader.is_between == Some(true) {
            counts.wait_for_healing();
        }
        if length == 0 || to.write_all(bytes).is_err() {
            return Ok(());
        }
    }
}

/// Reads one direction of a connection.
struct Reader {
    frames: Frames,
    unpacker: Unpacker,
    /// Known once the hello has come: links within a cluster are none of our business.
    is_between: Option<bool>,
}

impl Reader {
    fn new(sealed: bool) -> io::Result<Reader> {
        Ok(Reader { frames: Frames::default(), unpacker: Unpacker::new(&[])?, is_between: sealed.then_some(true) })
    }

    fn read(&mut self, bytes: &[u8], counts: &Counts) -> Result<(), String> {
        let add = |count: &AtomicU64, by: usize| count.fetch_add(by as u64, Ordering::Relaxed);
        if self.is_between == Some(false) {
            return Ok(());
        }
        let mut chunk = Chunk::new(if counts.sealed { &[] } else { bytes });
        while let Some(frame) = self.frames.next(&mut chunk, FRAME_BYTES).map_err(|why| format!("no frames of a link: {why:?}"))? {
            match link::read(&frame).map_err(|why| format!("no frame of a link: {why:?}"))? {
                Frame::Hello(hello) | Frame::Welcome(hello) => self.is_between = Some(hello.purpose == Purpose::Between),
                Frame::Update { bytes, .. } => _ = add(&counts.updates, events::frames(bytes).count()),
                Frame::Complex { bytes, .. } => {
                    let complex = self.unpacker.unpack(bytes).map_err(|why| format!("no complex message: {why:?}"))?;
                    add(&counts.complex, 1);
                    add(&counts.others, complex.others().len());
                    add(&counts.updates, complex.updates().len());
                    add(&counts.gathered, complex.updates().len());
                }
                Frame::Entry { .. } => _ = add(&counts.others, 1),
                Frame::Refusal(_) | Frame::Bye(_) | Frame::Ack(_) | Frame::Ping(_) | Frame::Pong(_) => {}
            }
            if self.is_between == Some(false) {
                return Ok(());
            }
        }
        add(&counts.bytes, bytes.len());
        Ok(())
    }
}
