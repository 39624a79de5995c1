//! Presences that the server makes, when a client can't any more: the last word of a session, and what is kept of it.

use crate::base::time::WallClock;
use crate::wire::native::{Presence, PresenceArgs, Show};
use crate::wire::presence;
use compact_str::CompactString;
use flatbuffers::FlatBufferBuilder;

/// An unavailable presence of a session.
pub fn farewell(resource: &str, status: Option<&str>, stamp: WallClock) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::with_capacity(128);
    let resource = Some(builder.create_string(resource));
    let status = status.map(|status| builder.create_string(status));
    let args = PresenceArgs { resource, show: Show::Unavailable, status, stamp: stamp.0, ..PresenceArgs::default() };
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
