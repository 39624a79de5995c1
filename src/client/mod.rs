//! The client: what tests, the benchmark and programs that use fanal log in with.
//!
//! Lives on: any thread of a client process; a node has none. Three levels, each on top of the one before: [`codec`] turns bytes
//! into verified frames and is what a load generator wants; [`inbox`] answers pings, acknowledges messages, drops what is old and
//! yields owned values, still without a socket; [`Client`] and [`Trunk`] (feature `runtime`) are blocking connections.
//!
//! ```no_run
//! use fanal::client::{Client, LogIn, Presence};
//! use std::time::Duration;
//!
//! let mut alice = Client::connect("127.0.0.1:7400", Duration::from_secs(5))?;
//! alice.log_in("alice@localhost", LogIn::Password("secret"), "phone")?;
//! alice.subscribe("bob@localhost", "it's Alice")?;
//! alice.set_presence(&Presence { status: "on the train".into(), ..Presence::default() })?;
//! while let Some(event) = alice.next_event(Duration::from_secs(60))? {
//!     println!("{event:?}");
//! }
//! alice.log_out("gone home")?;
//! # Ok::<(), fanal::client::Error>(())
//! ```
//!
//! A program that shall not ask for the password again keeps a token instead, which is never sent:
//!
//! ```no_run
//! use fanal::client::{Client, HashedToken, LogIn, Tls};
//! use std::{path::Path, time::Duration};
//! # fn kept() -> Option<HashedToken> { None }
//! # fn keep(token: Option<&HashedToken>) {}
//!
//! let tls = Tls::with_roots("example.org", Path::new("roots.pem"))?;
//! let mut alice = Client::connect_tls("example.org:7400", &tls, Duration::from_secs(5))?;
//! alice.remember_as("alice's telescope");
//! match kept() {
//!     Some(token) => alice.log_in("alice@example.org", LogIn::Hashed(&token), "dome")?,
//!     None => alice.log_in("alice@example.org", LogIn::Password("secret"), "dome")?,
//! };
//! keep(alice.hashed_token());
//! // Later, when the connection has broken:
//! if !alice.reconnect()?.resumed {
//!     keep(alice.hashed_token());
//!     // A new session: presence is to be set, the roster to be asked for.
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod codec;
pub mod inbox;
pub mod sasl;
pub mod values;
pub mod versions;

#[cfg(feature = "runtime")]
mod connection;
#[cfg(feature = "runtime")]
pub mod tls;
#[cfg(feature = "runtime")]
mod tokens;
#[cfg(feature = "runtime")]
mod trunk;
#[cfg(feature = "runtime")]
mod user;

#[cfg(feature = "runtime")]
pub use connection::Error;
#[cfg(feature = "runtime")]
pub use tls::{Tls, TlsError};
#[cfg(feature = "runtime")]
pub use trunk::{Trunk, TrunkEvent};
#[cfg(feature = "runtime")]
pub use user::{Client, LogIn};
pub use values::{
    Answer, Contact, DirectedPresence, Document, Event, Greeting, HashedToken, LastSeen, LoggedIn, Message, Presence,
    PresenceEvent, Refusal, Roster, SubscriptionRequest,
};
