//! What goes between nodes, read along the way: each entry in words for the trace, each update for the check that it crosses once.
//!
//! Lives on: the simulator. Serves Z6, M4. Invariant: it reads what the links' own machines read, and changes nothing. What is left
//! of a connection that was given up is not taken: what must arrive comes again by the next one, with whatever updates are in the
//! same complex message.

use super::Env;
use super::check::Held;
use super::check::once::Asker;
use super::counts::Happening;
use super::links::End;
use crate::base::limits::LINK_FRAME_BYTES;
use crate::presence::border::{self, Crossing};
use crate::presence::control::Control;
use crate::presence::frame::{frames, head, is_reference};
use crate::presence::passage;
use crate::wire::complex::Unpacker;
use crate::wire::event::Head;
use crate::wire::frame::{Chunk, Frames};
use crate::wire::link::{Frame, read};
use std::collections::BTreeMap;

/// What has come of frames that are not whole yet, by connection and the end that reads.
#[derive(Default)]
pub struct Spy(BTreeMap<(i32, bool), Frames>);

impl Spy {
    /// One end has read bytes.
    pub fn look(env: &mut Env, link: i32, end: End, bytes: &[u8]) -> Held {
        let Some((from, to)) = env.links.way_to(link, end) else { return Ok(()) };
        let key = (link, end == End::Server);
        if end == End::Server {
            env.openings.heard(link, to, bytes);
        }
        let mut known = env.spy.0.remove(&key).unwrap_or_default();
        let mut chunk = Chunk::new(bytes);
        while let Ok(Some(frame)) = known.next(&mut chunk, LINK_FRAME_BYTES) {
            match read(&frame) {
                Ok(Frame::Entry { bytes, .. }) => entry(env, (from, to), bytes),
                Ok(Frame::Update { bytes, .. }) => frames(bytes).try_for_each(|frame| update(env, (from, to), head(frame)))?,
                Ok(Frame::Complex { bytes, .. }) => complex(env, (from, to), bytes)?,
                Ok(frame @ (Frame::Hello(_) | Frame::Welcome(_) | Frame::Refusal(_) | Frame::Bye(_))) => {
                    env.trace.note(env.now, format_args!("node {from} says to {to}: {frame:?}"));
                }
                _ => {}
            }
        }
        env.spy.0.insert(key, known);
        Ok(())
    }

    /// One end of a connection is over.
    pub fn forget(&mut self, link: i32, end: End) {
        self.0.remove(&(link, end == End::Server));
    }
}

fn update(env: &mut Env, way: (usize, usize), head: Head) -> Held {
    env.trace.note(env.now, format_args!("node {} tells {}: {head:?}", way.0, way.1));
    if is_reference(&head) {
        env.count(Happening::Referred);
        env.memories.crossings.referred(way, &head);
        return Ok(());
    }
    env.count(Happening::LinkUpdate);
    let to = asker(env, way.0, way.1);
    env.memories.crossings.linked(way, to, env.shape.cluster_of(way.1), &head)
}

/// Who asks a node for something.
fn asker(env: &Env, node: usize, by: usize) -> Asker {
    match env.shape.cluster_of(by) {
        cluster if cluster != env.shape.cluster_of(node) => Asker::Cluster(cluster),
        _ => Asker::Node(by),
    }
}

fn entry(env: &mut Env, (from, to): (usize, usize), bytes: &[u8]) {
    let Some((word, said)) = bytes.split_first_chunk() else { return };
    let inside = env.shape.cluster_of(from) == env.shape.cluster_of(to);
    let core = u16::from_le_bytes(*word);
    let (control, crossing) = (passage::decode(said), border::decode(said));
    match (inside, &control, &crossing) {
        (true, &Ok(Control::Obtain { publisher, session, .. }), _) | (false, _, &Ok(Crossing::Obtain { publisher, session })) => {
            env.memories.crossings.asked(asker(env, to, from), publisher, session)
        }
        _ => {}
    }
    match (inside, control, crossing) {
        (true, Ok(control), _) => env.trace.note(env.now, format_args!("node {from} says to {to}.{core}: {control:?}")),
        (false, _, Ok(crossing)) if core == 0 => {
            env.count(Happening::Crossed);
            env.trace.note(env.now, format_args!("cluster of {from} says to {to}: {crossing:?}"));
        }
        _ => env.trace.note(env.now, format_args!("node {from} says to {to}: word {core}")),
    }
}

fn complex(env: &mut Env, way: (usize, usize), bytes: &[u8]) -> Held {
    env.count(Happening::Complex);
    let mut unpacker = Unpacker::new(&[]).expect("nothing to prepare");
    let Ok(complex) = unpacker.unpack(bytes) else { return Ok(()) };
    complex.others().for_each(|bytes| entry(env, way, bytes));
    complex.updates().try_for_each(|(head, _)| update(env, way, head))
}
