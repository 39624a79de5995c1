//! A link's connections through something that counts what goes over the wire.

use fanal::base::limits::LINK_FRAME_BYTES;
use fanal::presence::frame;
use fanal::wire::frame::{Chunk, Frames};
use fanal::wire::link::{self, Frame};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What has gone one way.
#[derive(Default)]
pub struct Counts {
    /// Frames of updates, and the updates in them.
    pub update_frames: AtomicU64,
    pub updates: AtomicU64,
    pub entries: AtomicU64,
    pub complex: AtomicU64,
    pub bytes: AtomicU64,
}

impl Counts {
    /// Frames of updates, updates in them, complex messages.
    pub fn read(&self) -> [u64; 3] {
        [&self.update_frames, &self.updates, &self.complex].map(|count| count.load(Ordering::SeqCst))
    }
}

/// Stands before a node: who connects to it speaks with the node.
pub struct Tap {
    pub address: SocketAddr,
    /// From those who connect to the node, and the other way.
    pub to_node: Arc<Counts>,
    pub from_node: Arc<Counts>,
}

impl Tap {
    pub fn before(node: SocketAddr) -> Tap {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tap = Tap { address, to_node: Arc::default(), from_node: Arc::default() };
        let (to_node, from_node) = (tap.to_node.clone(), tap.from_node.clone());
        std::thread::spawn(move || {
            for outside in listener.incoming().map_while(Result::ok) {
                // The node may not be there yet: whoever dialled tries again.
                let Ok(inside) = TcpStream::connect(node) else { continue };
                let [out_again, in_again] = [&outside, &inside].map(|stream| stream.try_clone().unwrap());
                let (to_node, from_node) = (to_node.clone(), from_node.clone());
                std::thread::spawn(move || pass(outside, in_again, &to_node));
                std::thread::spawn(move || pass(inside, out_again, &from_node));
            }
        });
        tap
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, counts: &Counts) {
    let (mut buffer, mut frames) = (vec![0; 1 << 16], Frames::default());
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let mut chunk = Chunk::new(&buffer[..read]);
        counts.bytes.fetch_add(read as u64, Ordering::SeqCst);
        while let Some(found) = frames.next(&mut chunk, LINK_FRAME_BYTES).unwrap() {
            match link::read(&found).unwrap() {
                Frame::Update { bytes, .. } => {
                    counts.update_frames.fetch_add(1, Ordering::SeqCst);
                    counts.updates.fetch_add(frame::frames(bytes).count() as u64, Ordering::SeqCst);
                }
                Frame::Entry { .. } => _ = counts.entries.fetch_add(1, Ordering::SeqCst),
                Frame::Complex { .. } => _ = counts.complex.fetch_add(1, Ordering::SeqCst),
                _ => {}
            }
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    _ = to.shutdown(Shutdown::Both);
    _ = from.shutdown(Shutdown::Both);
}
