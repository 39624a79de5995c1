//! A closed-loop load generator: many clients on one thread, which send a frame when earlier ones have been heard (see `Pace`).
//!
//! Lives on: the generator's pinned thread. Frames are recognised, not decoded. Serves G6. Invariant: every delivery is counted, so
//! loss shows as a stall, never as speed.

use super::talk::STALL;
use super::wires::Wires;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What the clients say, and how their frames are told apart.
pub trait Traffic {
    /// Appends the next frame of `client`.
    fn make(&mut self, client: u32, into: &mut Vec<u8>);

    /// Finds the whole frames at the start of `bytes`, which `client` got, and says for each update which client had sent it.
    /// Returns the bytes of these frames.
    fn recognise(&mut self, client: u32, bytes: &[u8], delivered: impl FnMut(u32)) -> usize;

    /// How many clients hear of an update of `client`.
    fn audience(&self, client: u32) -> u32;

    /// How many clients `client` hears of: what it gets when each of them sends one frame.
    fn publishers(&self, client: u32) -> u32;
}

/// When a client may send its next frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// When fewer than `window` of its frames are on their way to somebody. Rounds go in lockstep at window 1: server and load take
    /// turns.
    Delivered,
    /// When it has heard as many frames as its publishers send in one round: clients keep each other going, and a server that is
    /// busy finds the next round's frames waiting.
    Heard,
}

#[derive(Clone)]
struct Client {
    /// `Pace::Delivered`: deliveries of its frames that are still to come.
    outstanding: u32,
    /// `Pace::Heard`: frames it may send, and frames heard towards the next.
    credit: u32,
    heard: u32,
    /// It is in `due`.
    due: bool,
}

/// What was counted in a measured time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counted {
    pub updates: u64,
    pub deliveries: u64,
    pub seconds: f64,
}

/// Clients that are connected, and their traffic.
pub struct Load<T> {
    traffic: T,
    wires: Wires,
    clients: Vec<Client>,
    pace: Pace,
    window: u32,
    due: Vec<u32>,
    frames: Vec<u8>,
    updates: u64,
    deliveries: u64,
    /// Deliveries that the updates so far will make.
    expected: u64,
}

impl<T: Traffic> Load<T> {
    /// Connects `clients` clients, each of which may have `window` frames on their way, by the rule of `pace`.
    pub fn connect(target: SocketAddr, clients: u32, (pace, window): (Pace, u32), traffic: T) -> io::Result<Load<T>> {
        let mut wires = Wires::to(target, false)?;
        (0..clients).try_for_each(|_| wires.connect().map(drop))?;
        let (due, client) = ((0..clients).collect(), Client { outstanding: 0, credit: window, heard: 0, due: true });
        let clients = vec![client; clients as usize];
        Ok(Load { traffic, wires, clients, pace, window, due, frames: Vec::new(), updates: 0, deliveries: 0, expected: 0 })
    }

    /// Keeps the clients talking for `time`.
    ///
    /// # Errors
    /// A connection broke, or no delivery came for `STALL`.
    pub fn run(&mut self, time: Duration) -> io::Result<Counted> {
        let (updates, deliveries) = (self.updates, self.deliveries);
        let began = Instant::now();
        while began.elapsed() < time {
            self.speak()?;
            self.listen()?;
        }
        let seconds = began.elapsed().as_secs_f64();
        Ok(Counted { updates: self.updates - updates, deliveries: self.deliveries - deliveries, seconds })
    }

    /// Says nothing new and waits until every frame has reached its audience: nothing was lost.
    pub fn drain(&mut self) -> io::Result<()> {
        while self.deliveries < self.expected {
            self.listen()?;
        }
        Ok(())
    }

    /// Sends what the windows allow.
    fn speak(&mut self) -> io::Result<()> {
        let mut due = std::mem::take(&mut self.due);
        for number in due.drain(..) {
            let audience = self.traffic.audience(number);
            let client = &mut self.clients[number as usize];
            client.due = false;
            self.frames.clear();
            let allowed = match self.pace {
                Pace::Delivered => self.window - client.outstanding.div_ceil(audience),
                Pace::Heard => std::mem::take(&mut client.credit),
            };
            for _ in 0..allowed {
                self.traffic.make(number, &mut self.frames);
            }
            client.outstanding += audience * allowed;
            self.updates += u64::from(allowed);
            self.expected += u64::from(audience * allowed);
            self.wires.send(number, &self.frames)?;
        }
        self.due = due;
        Ok(())
    }

    /// Waits for deliveries and counts what came.
    fn listen(&mut self) -> io::Result<()> {
        let Load { traffic, wires, clients, pace, window, due, deliveries, .. } = self;
        let began = Instant::now();
        let heard = wires.listen(STALL, |number, bytes| {
            let room = match pace {
                Pace::Delivered => traffic.audience(number) * (*window - 1),
                Pace::Heard => 0,
            };
            let mut heard = 0;
            let used = traffic.recognise(number, bytes, |publisher| {
                heard += 1;
                let client = &mut clients[publisher as usize];
                client.outstanding -= 1;
                if *pace == Pace::Delivered && client.outstanding <= room && !client.due {
                    client.due = true;
                    due.push(publisher);
                }
            });
            *deliveries += u64::from(heard);
            let (client, round) = (&mut clients[number as usize], traffic.publishers(number));
            client.heard += heard;
            if *pace == Pace::Heard && client.heard >= round {
                client.credit += client.heard / round;
                client.heard %= round;
                if !client.due {
                    client.due = true;
                    due.push(number);
                }
            }
            used
        })?;
        if heard == 0 && began.elapsed() >= STALL {
            return Err(io::Error::other(format!("no delivery for {} s: the node has lost one, or stopped", STALL.as_secs())));
        }
        Ok(())
    }
}
