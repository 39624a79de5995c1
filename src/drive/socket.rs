//! Sockets outside the ring: listening, making those that dial, naming the peer, shutting, closing.
//!
//! Lives on: any core. Every core has its own listener on the same port (SO_REUSEPORT), so accepting needs no hand-over; where the
//! kernel's hash puts a connection is corrected after log-in. These calls never block, so they need no operation in the ring (the
//! ring would run a shutdown on a worker thread). Invariant: a descriptor has one owner, and `RawSocket` marks where it changes.

use crate::base::id::RawSocket;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::mem::ManuallyDrop;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

/// Connections that wait to be accepted, per listener; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// One listener on `address` for each of `cores`. With port 0 they share the port that the kernel chose.
///
/// # Errors
/// Names the address and the likely fix.
pub fn listen(address: SocketAddr, cores: usize) -> io::Result<Vec<TcpListener>> {
    let mut address = address;
    let mut listeners = Vec::with_capacity(cores);
    for _ in 0..cores {
        let listener = listen_once(address).map_err(|error| {
            let fix = match error.kind() {
                io::ErrorKind::AddrInUse => "another program listens there: stop it or choose another port",
                io::ErrorKind::AddrNotAvailable => "this machine has no such address: choose one that `ip addr` shows",
                io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE: grant it or choose another port",
                _ => "see the reason",
            };
            io::Error::new(error.kind(), format!("can't listen on {address}: {error}; {fix}"))
        })?;
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn listen_once(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit it. The driver does its own gathering.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A socket to be connected, of the same kind as those that are accepted.
pub(super) fn dialling(address: SocketAddr, from: Option<SocketAddr>) -> io::Result<RawSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(from) = from {
        socket.bind(&from.into())?;
    }
    Ok(RawSocket(socket.into_raw_fd()))
}

/// Whether both ends of a connection are this one socket.
pub(super) fn is_own_peer(socket: RawSocket) -> bool {
    let socket = borrow(socket);
    matches!((socket.local_addr(), socket.peer_addr()), (Ok(local), Ok(peer)) if local == peer)
}

/// Who is at the other end; 0.0.0.0 when the peer has already gone.
pub(super) fn peer(socket: RawSocket) -> IpAddr {
    borrow(socket).peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip())
}

/// Says something short to a peer whose connection is about to be closed, if it fits into the empty buffer of a new socket, as it
/// does; nobody waits, and a peer that has gone already hears nothing.
pub(super) fn tell(socket: RawSocket, bytes: &[u8]) {
    if !bytes.is_empty() {
        let _unheard = SockRef::from(&*borrow(socket)).send_with_flags(bytes, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    }
}

/// Shuts the socket; it stays open. A peer that has gone already is no error.
pub(super) fn shut(socket: RawSocket, how: Shutdown) {
    // Only NotConnected can come of it, which is what was asked for.
    let _gone = borrow(socket).shutdown(how);
}

pub(super) fn borrow(socket: RawSocket) -> ManuallyDrop<TcpStream> {
    // SAFETY: the descriptor is open while its holder has the `RawSocket`, and `ManuallyDrop` keeps this view from closing it.
    ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(socket.0) })
}

/// Closes a socket that no driver has: one that was handed out and will not be handed on.
pub fn close(socket: RawSocket) {
    // SAFETY: the caller owns the descriptor, and gives it up.
    drop(unsafe { OwnedFd::from_raw_fd(socket.0) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_listens_on_the_same_port() {
        let listeners = listen("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let port = listeners[0].local_addr().unwrap().port();
        assert!(port != 0 && listeners.iter().all(|l| l.local_addr().unwrap().port() == port));
    }

    #[test]
    fn an_address_that_cannot_be_had_is_named_with_the_fix() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let text = listen(address, 1).unwrap_err().to_string();
        assert!(text.contains(&address.to_string()) && text.contains("choose another port"), "{text}");
    }

    #[test]
    fn sockets_send_without_delay_whoever_made_the_connection() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(listener.accept().unwrap().0.nodelay().unwrap());
        let dialling = dialling(listener.local_addr().unwrap(), None).unwrap();
        assert!(borrow(dialling).nodelay().unwrap());
        close(dialling);
    }
}
