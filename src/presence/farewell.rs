//! Presences that the server makes: the last word of a session whose client can't say it any more, what is kept of it, and what
//! stands for a long one that travels by reference.

use crate::base::time::WallClock;
use crate::wire::native::{Presence, PresenceArgs, Show};
use crate::wire::presence;
use compact_str::CompactString;
use flatbuffers::FlatBufferBuilder;

/// An unavailable presence of a session.
pub fn farewell(resource: &str, status: Option<&str>, stamp: WallClock) -> Vec<u8> {
    make(resource, Show::Unavailable, status, stamp)
}

/// What stands for a presence that is asked for (M5).
pub fn stand_in(resource: &str, show: Show) -> Vec<u8> {
    make(resource, show, None, WallClock::default())
}

fn make(resource: &str, show: Show, status: Option<&str>, stamp: WallClock) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::with_capacity(128);
    let resource = Some(builder.create_string(resource));
    let status = status.map(|status| builder.create_string(status));
    let args = PresenceArgs { resource, show, status, stamp: stamp.0, ..PresenceArgs::default() };
    let root = Presence::create(&mut builder, &args);
    builder.finish(root, None);
    builder.finished_data().to_vec()
}

/// The resource that a presence names; empty when there is no presence.
pub fn resource(presence: &[u8]) -> CompactString {
    presence::read(presence).map(|view| view.resource.into()).unwrap_or_default()
}

/// The status of a presence; none when there is no presence.
pub fn status(presence: &[u8]) -> Option<String> {
    presence::read(presence).ok()?.fields().status.to_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_farewell_can_be_read_back() {
        let made = farewell("phone", Some("gone fishing"), WallClock(7));
        let view = presence::read(&made).expect("sound");
        assert_eq!((view.resource, view.show, view.fields().stamp), ("phone", Show::Unavailable, 7));
        assert_eq!((status(&made).as_deref(), &*resource(&made)), (Some("gone fishing"), "phone"));
        assert_eq!((status(b""), &*resource(b"")), (None, ""));
    }
}
