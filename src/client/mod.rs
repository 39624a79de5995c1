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
//! let mut alice = Client::connect("127.0.0.1:5290", Duration::from_secs(5))?;
//! alice.log_in("alice@localhost", LogIn::Password("secret"), "phone")?;
//! alice.subscribe("bob@localhost", "it's Alice")?;
//! alice.set_presence(&Presence { status: "on the train".into(), ..Presence::default() })?;
//! while let Some(event) = alice.next_event(Duration::from_secs(60))? {
//!     println!("{event:?}");
//! }
//! alice.log_out("gone home")?;
//! # Ok::<(), fanal::client::Error>(())
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
    Answer, Contact, DirectedPresence, Document, Event, Greeting, LastSeen, LoggedIn, Message, Presence, PresenceEvent, Refusal,
    Roster, SubscriptionRequest,
};
