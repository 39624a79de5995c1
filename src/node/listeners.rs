//! The node's listeners: for each door a socket of every core, all on one port.
//!
//! Lives on: the thread that starts the node. Serves G1, G6. Invariant: a listener's number is the same on every core, and the
//! place of what it speaks in [`Doors::listeners`](crate::front::doors::Doors).

use super::StartError;
use crate::base::config::Listen;
use crate::drive::socket;
use crate::front::doors::Speaks;
use std::net::{SocketAddr, TcpListener};

/// A door that is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listening {
    pub speaks: Speaks,
    pub address: SocketAddr,
}

/// Opens every door there is to be, and gives each core its sockets.
pub(super) fn open(
    listen: &Listen,
    link: Option<SocketAddr>,
    cores: usize,
) -> Result<(Vec<Listening>, Vec<Vec<TcpListener>>), StartError> {
    let doors = [
        (Speaks::Native, Some(listen.native)),
        (Speaks::Xmpp, listen.xmpp),
        (Speaks::Xmpps, listen.xmpps),
        (Speaks::WebSocket, listen.ws),
        (Speaks::Link, link),
    ];
    let mut listening = Vec::new();
    let mut by_core: Vec<Vec<TcpListener>> = (0..cores).map(|_| Vec::new()).collect();
    for (speaks, address) in doors {
        let Some(address) = address else { continue };
        let sockets = socket::listen(address, cores).map_err(|source| StartError::Listen { door: speaks.name(), source })?;
        listening.push(Listening { speaks, address: sockets[0].local_addr()? });
        for (core, socket) in by_core.iter_mut().zip(sockets) {
            core.push(socket);
        }
    }
    Ok((listening, by_core))
}
