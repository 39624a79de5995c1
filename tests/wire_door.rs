//! The native door lets through what is sound, allowed and in order, and nothing else; and it can move between cores.

mod wire_samples;

use fanal::base::limits::Limits;
use fanal::base::reason::Reason;
use fanal::front::native::{Door, Incoming, PARTING_BYTES, Rules};
use fanal::wire::decode::{self, ClientFrame};
use fanal::wire::encode::{Encoder, LogInFields, PresenceFields, Tag};
use fanal::wire::frame::{Chunk, HEADER_BYTES};
use fanal::wire::native::Kind;
use wire_samples::{PRESENCE, TAG};

fn frame(write: impl FnOnce(&mut Encoder, &mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut Encoder::default(), &mut out);
    out
}

fn hello() -> Vec<u8> {
    frame(|e, out| e.hello(out, TAG, "test"))
}

fn log_in(stream: u32, mechanism: &str) -> Vec<u8> {
    let fields = LogInFields { jid: "alice@localhost", mechanism, data: b"data", resource: "phone", ..LogInFields::default() };
    frame(|e, out| e.log_in(out, Tag { stream, request: 2 }, &fields))
}

fn ping() -> Vec<u8> {
    frame(|e, out| e.ping(out, TAG, 1))
}

/// What a test remembers of a frame.
fn name(incoming: &Incoming<'_>) -> &'static str {
    match incoming.frame {
        ClientFrame::Hello(_) => "Hello",
        ClientFrame::Ping(_) => "Ping",
        ClientFrame::LogIn { .. } => "LogIn",
        ClientFrame::Resume(_) => "Resume",
        ClientFrame::SaslResponse(_) => "SaslResponse",
        ClientFrame::SetPresence(_) => "SetPresence",
        ClientFrame::LogOut(_) => "LogOut",
        _ => "other",
    }
}

/// A door and what its host would do: log-ins with the mechanism "ok" open, "trunk" open a trunk, "challenge" challenge, and
/// others are refused.
struct Host {
    door: Door,
    rules: Rules,
    came: Vec<&'static str>,
}

impl Host {
    fn new() -> Host {
        Host::with(&Limits::default())
    }

    fn with(limits: &Limits) -> Host {
        Host { door: Door::default(), rules: Rules::new(limits), came: Vec::new() }
    }

    fn open(mechanism: &str) -> Host {
        let mut host = Host::new();
        host.receive(&[hello(), log_in(0, mechanism)].concat()).unwrap();
        host.came.clear();
        host
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        let mut chunk = Chunk::new(bytes);
        while let Some(incoming) = self.door.next(&mut chunk, &self.rules)? {
            self.came.push(name(&incoming));
            let mechanism = match incoming.frame {
                ClientFrame::LogIn { log_in, .. } if incoming.tag.stream == 0 => log_in.mechanism().unwrap_or_default().to_owned(),
                ClientFrame::SaslResponse(_) => "ok".to_owned(),
                ClientFrame::Resume(_) if incoming.tag.stream == 0 => "no".to_owned(),
                _ => continue,
            };
            match mechanism.as_str() {
                "ok" => self.door.opened(),
                "trunk" => self.door.opened_trunk(),
                "challenge" => self.door.challenged(),
                "later" => self.door.authenticated(),
                "wait" => {}
                _ => self.door.refused(&self.rules)?,
            }
        }
        Ok(())
    }
}

#[test]
fn hello_then_log_in_then_the_rest() {
    let mut host = Host::new();
    let presence = frame(|e, out| e.set_presence(out, TAG, &PRESENCE));
    host.receive(&[hello(), ping(), log_in(0, "ok"), presence].concat()).unwrap();
    assert_eq!(host.came, ["Hello", "Ping", "LogIn", "SetPresence"]);
}

#[test]
fn nothing_comes_before_hello() {
    for sample in wire_samples::of_client() {
        let wanted = if sample.kind == Kind::Hello { Ok(()) } else { Err(Reason::OutOfOrder) };
        assert_eq!(Host::new().receive(&sample.bytes), wanted, "{:?}", sample.kind);
    }
}

#[test]
fn before_log_in_there_is_only_ping_and_after_it_no_log_in() {
    for sample in wire_samples::of_client() {
        let kind = sample.kind;
        let ping = matches!(kind, Kind::Ping | Kind::Pong);
        let begins = matches!(kind, Kind::LogIn | Kind::Resume | Kind::Register);
        let fits = |fits: bool| if fits { Ok(()) } else { Err(Reason::OutOfOrder) };
        let mut greeted = Host::new();
        greeted.receive(&hello()).unwrap();
        assert_eq!(greeted.receive(&sample.bytes), fits(ping || begins), "greeted, {kind:?}");
        let out_of_place = begins || matches!(kind, Kind::Hello | Kind::SaslResponse | Kind::Bind);
        assert_eq!(Host::open("ok").receive(&sample.bytes), fits(!out_of_place), "open, {kind:?}");
        assert_eq!(Host::open("wait").receive(&sample.bytes), fits(ping), "while it is decided, {kind:?}");
        assert_eq!(
            Host::open("challenge").receive(&sample.bytes),
            fits(ping || kind == Kind::SaslResponse),
            "challenged, {kind:?}"
        );
        let follows = matches!(kind, Kind::Bind | Kind::Resume);
        assert_eq!(Host::open("later").receive(&sample.bytes), fits(ping || follows), "authenticated, {kind:?}");
    }
}

#[test]
fn a_server_frame_or_an_unknown_kind_is_a_bad_frame() {
    for sample in wire_samples::of_server() {
        let both = matches!(sample.kind, Kind::Ping | Kind::Pong | Kind::Message);
        let wanted = match sample.kind {
            Kind::Hello => Err(Reason::OutOfOrder),
            _ if both => Ok(()),
            _ => Err(Reason::BadFrame),
        };
        assert_eq!(Host::open("ok").receive(&sample.bytes), wanted, "{:?}", sample.kind);
    }
    let mut unknown = ping();
    unknown[4] = 200;
    assert_eq!(Host::open("ok").receive(&unknown), Err(Reason::BadFrame));
}

#[test]
fn a_version_this_node_does_not_speak_is_refused() {
    use fanal::wire::native as n;
    let hello = |lowest, version| {
        let mut builder = flatbuffers::FlatBufferBuilder::new();
        let table = n::Hello::create(&mut builder, &n::HelloArgs { version, lowest, ..Default::default() });
        builder.finish_minimal(table);
        let mut body = builder.finished_data().to_vec();
        body.resize(body.len().next_multiple_of(8), 0);
        let header = fanal::wire::frame::Header { body: body.len() as u32, kind: Kind::Hello, stream: 0, request: 1 };
        Host::new().receive(&[&header.encode()[..], &body].concat())
    };
    assert_eq!(hello(1, 1), Ok(()));
    assert_eq!(hello(1, 9), Ok(()), "a newer client that still speaks ours");
    assert_eq!(hello(0, 1), Ok(()));
    assert_eq!(hello(2, 9), Err(Reason::UnknownVersion));
    assert_eq!(hello(0, 0), Err(Reason::UnknownVersion));
    assert_eq!(hello(9, 0), Err(Reason::UnknownVersion));
}

#[test]
fn truncated_bodies_are_bad_frames_and_long_frames_too_large() {
    for sample in wire_samples::of_client() {
        let body = &sample.bytes[HEADER_BYTES..];
        for length in 0..body.len() {
            let cut = decode::from_client(sample.kind, &body[..length]);
            // Cutting nothing but zeros may leave a sound frame.
            let sound = body[length..].iter().all(|&byte| byte == 0) && cut.is_ok();
            assert!(sound || cut.err() == Some(Reason::BadFrame), "{:?} cut to {length}", sample.kind);
        }
    }
    let presence = frame(|e, out| e.set_presence(out, TAG, &PRESENCE));
    let mut cut = presence[..presence.len() - 24].to_vec();
    let body = (cut.len() - HEADER_BYTES) as u32;
    cut[..4].copy_from_slice(&body.to_le_bytes());
    assert_eq!(Host::open("ok").receive(&cut), Err(Reason::BadFrame));
    let mut host = Host::with(&Limits { frame_bytes: 1024, ..Limits::default() });
    let long = frame(|e, out| e.hello(out, TAG, &"x".repeat(1024)));
    assert_eq!(host.receive(&long[..HEADER_BYTES]), Err(Reason::FrameTooLarge));
}

#[test]
fn failed_log_ins_are_counted_and_end_the_connection() {
    let mut host = Host::with(&Limits { log_in_attempts: 3, ..Limits::default() });
    host.receive(&[hello(), log_in(0, "no"), log_in(0, "no")].concat()).unwrap();
    assert_eq!(host.receive(&log_in(0, "no")), Err(Reason::TooManyAttempts));
}

#[test]
fn after_a_session_has_ended_another_may_begin_and_nothing_else_may_come_from_whoever_has_ended_it() {
    let (log_out, roster_get) = (frame(|e, out| e.log_out(out, TAG, "bye")), frame(|e, out| e.roster_get(out, TAG)));
    for by_host in [true, false] {
        let ended = || {
            let mut host = Host::open("ok");
            match by_host {
                true => host.door.ended(),
                false => host.receive(&log_out).unwrap(),
            }
            host
        };
        // Who has not ended it may not know yet that it has.
        assert_eq!(ended().receive(&roster_get), if by_host { Ok(()) } else { Err(Reason::OutOfOrder) });
        assert_eq!(ended().receive(&[log_out.clone(), roster_get.clone()].concat()), Err(Reason::OutOfOrder));
        assert_eq!(ended().receive(&hello()), Err(Reason::OutOfOrder));
        assert_eq!(ended().receive(&[log_in(0, "ok"), roster_get.clone()].concat()), Ok(()));
    }
    assert_eq!(Host::open("ok").receive(&[log_out.clone(), roster_get].concat()), Err(Reason::OutOfOrder));
    assert_eq!(Host::open("ok").receive(&[log_out, log_in(0, "ok")].concat()), Ok(()));
}

#[test]
fn only_a_trunk_has_streams() {
    let roster_get = |stream| frame(|e, out| e.roster_get(out, Tag { stream, request: 1 }));
    assert_eq!(Host::open("ok").receive(&roster_get(1)), Err(Reason::BadFrame));
    assert_eq!(Host::new().receive(&log_in(1, "ok")), Err(Reason::BadFrame));
    let mut trunk = Host::open("trunk");
    assert!(trunk.door.is_trunk());
    trunk.receive(&[log_in(1, ""), roster_get(1), log_in(u32::MAX, ""), ping()].concat()).unwrap();
    assert_eq!(trunk.came, ["LogIn", "other", "LogIn", "Ping"]);
    assert_eq!(trunk.receive(&roster_get(0)), Err(Reason::BadFrame));
    assert_eq!(Host::open("trunk").receive(&log_in(0, "trunk")), Err(Reason::BadFrame));
    assert_eq!(Host::open("trunk").receive(&hello()), Err(Reason::OutOfOrder));
}

#[test]
fn an_idle_door_is_small_and_keeps_nothing_on_the_heap() {
    assert!(size_of::<Door>() <= 16, "{}", size_of::<Door>());
    let mut host = Host::open("ok");
    let presence = frame(|e, out| e.set_presence(out, TAG, &PRESENCE));
    host.receive(&presence[..20]).unwrap();
    assert!(host.door.heap_bytes() > 0);
    host.receive(&presence[20..]).unwrap();
    assert_eq!(host.door.heap_bytes(), 0);
}

#[test]
fn a_presence_is_handed_out_with_its_own_bytes_wherever_the_stream_is_cut() {
    let presence = frame(|e, out| e.set_presence(out, TAG, &PRESENCE));
    for cut in 0..=presence.len() {
        let mut host = Host::open("ok");
        let mut bytes = Vec::new();
        for piece in [&presence[..cut], &presence[cut..]] {
            let mut chunk = Chunk::new(piece);
            while let Some(incoming) = host.door.next(&mut chunk, &host.rules).unwrap() {
                let ClientFrame::SetPresence(presence) = incoming.frame else { panic!() };
                assert_eq!((presence.fields(), incoming.tag), (PRESENCE, TAG));
                bytes.push(presence.bytes.to_vec());
            }
        }
        assert_eq!(bytes, [&presence[HEADER_BYTES..]]);
    }
}

#[test]
fn a_connection_goes_on_at_another_core_wherever_the_stream_is_cut() {
    let late = PresenceFields { status: "sent before LoggedIn came", ..PRESENCE };
    let stream = [hello(), ping(), log_in(0, "ok"), frame(|e, out| e.set_presence(out, TAG, &late))].concat();
    let rules = Rules::new(&Limits::default());
    for cut in 0..=stream.len() {
        let (mut here, mut parting) = (Door::default(), None);
        for piece in [&stream[..cut], &stream[cut..]] {
            let Some(parting) = &mut parting else {
                let mut chunk = Chunk::new(piece);
                let mut found = false;
                while let Some(incoming) = here.next(&mut chunk, &rules).unwrap() {
                    found = matches!(incoming.frame, ClientFrame::LogIn { .. });
                    if found {
                        break;
                    }
                }
                parting = found.then(|| std::mem::take(&mut here).leave(chunk));
                continue;
            };
            parting.append(piece).unwrap();
        }
        let (door, unread) = Door::resume_from(parting.unwrap());
        let mut there = Host { door, ..Host::new() };
        there.receive(&unread).unwrap();
        assert_eq!(there.came, ["LogIn", "SetPresence"], "cut at {cut}");
    }
}

#[test]
fn failed_log_ins_are_remembered_by_the_next_core_and_what_follows_is_bounded() {
    let rules = Rules::new(&Limits { log_in_attempts: 2, ..Limits::default() });
    let mut host = Host { rules, ..Host::new() };
    host.receive(&[hello(), log_in(0, "no")].concat()).unwrap();
    let again = log_in(0, "wait");
    let mut chunk = Chunk::new(&again);
    assert!(host.door.next(&mut chunk, &rules).unwrap().is_some());
    let mut parting = std::mem::take(&mut host.door).leave(chunk);
    assert_eq!(parting.append(&vec![0; PARTING_BYTES]), Err(Reason::Flood));
    let (mut door, unread) = Door::resume_from(parting);
    assert!(door.next(&mut Chunk::new(&unread), &rules).unwrap().is_some());
    assert_eq!(door.refused(&rules), Err(Reason::TooManyAttempts));
}
