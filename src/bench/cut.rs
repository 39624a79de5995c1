//! `bench cluster --cut`: the links between the clusters are cut and healed. How long is it until every subscriber has the right
//! state again, and what crosses for it, when nobody, one of a hundred and everybody has changed meanwhile?
//!
//! Lives on: the generator's pinned thread. Serves G6, Z13. A cut is silence: what is on the way waits in the [`Taps`], and nobody
//! is told. Invariant: a state is right when it is the last one that its user has said, and every subscriber who was told that the
//! user is gone has been told of it since.

use super::across::Across;
use super::report::Report;
use super::talk::{STALL, Traffic};
use super::tap::Taps;
use super::wires::Wires;
use std::io;
use std::time::{Duration, Instant};

/// How often it is looked at what has crossed.
const LOOK: Duration = Duration::from_millis(5);
/// What crosses is counted for so long after the last state has come.
const AFTER: Duration = Duration::from_millis(500);
/// Of so many users one changes in the second cut.
const FEW: u32 = 100;

/// What one user's subscribers have heard since the links were cut.
#[derive(Clone, Copy, Default)]
struct View {
    /// The user's updates so far.
    said: u32,
    /// Subscribers who are to hear of a change.
    owed: u32,
    /// Those who were told that the user is gone, and of the last state.
    gone: u32,
    right: u32,
}

impl View {
    fn is_right(self) -> bool {
        self.right >= self.owed.max(self.gone)
    }
}

/// What one cut has brought.
struct Healed {
    changed: u32,
    /// From healing until the nodes have found each other, and until all is right.
    linked: Duration,
    right: Duration,
    bytes: u64,
    /// Users who were not seen as they are in the end.
    lost: u64,
}

struct Cut<'a> {
    wires: &'a mut Wires,
    across: &'a mut Across,
    taps: &'a Taps,
    /// Whether the nodes have found each other.
    found: &'a dyn Fn() -> io::Result<bool>,
    views: Vec<View>,
    wrong: usize,
}

/// Cuts the links three times for so long, and adds what it found to the report.
///
/// # Errors
/// A connection broke, or a node can't be asked.
pub fn run(
    report: &mut Report,
    (wires, across): (&mut Wires, &mut Across),
    taps: &Taps,
    found: &dyn Fn() -> io::Result<bool>,
    users: u32,
    time: Duration,
) -> io::Result<()> {
    let mut cut = Cut { wires, across, taps, found, views: vec![View::default(); users as usize], wrong: 0 };
    let names = [
        ["unchanged_linked_ms", "unchanged_resync_ms", "unchanged_resync_bytes"],
        ["linked_ms", "resync_ms", "resync_bytes"],
        ["all_changed_linked_ms", "all_changed_resync_ms", "all_changed_resync_bytes"],
    ];
    let mut lost = 0;
    for (changed, [linked, resync, bytes]) in [0, users.div_ceil(FEW), users].into_iter().zip(names) {
        let healed = cut.heal(time, changed)?;
        lost += healed.lost;
        report.number(linked, healed.linked.as_secs_f64() * 1e3, "from healing until the nodes have found each other");
        report.number(resync, healed.right.as_secs_f64() * 1e3, "from healing until all subscribers have the right state");
        report.count(bytes, healed.bytes, "that crossed for it, both ways, acknowledgements and pings and all");
        if changed == users.div_ceil(FEW) {
            report.count("changed", healed.changed, "users, during the second cut; nobody in the first, everybody in the third");
        }
    }
    report.count("lost", lost, "users who were not seen as they are in the end");
    Ok(())
}

impl Cut<'_> {
    fn heal(&mut self, time: Duration, changed: u32) -> io::Result<Healed> {
        self.views.iter_mut().for_each(|view| *view = View { said: view.said, ..View::default() });
        self.wrong = 0;
        self.taps.cut();
        let began = Instant::now();
        self.listen_until(began + time / 2)?;
        (0..changed).try_for_each(|user| self.change(user))?;
        self.listen_until(began + time)?;
        let before = self.taps.crossed()?.bytes;
        self.taps.heal();
        let (healed, mut heard, mut linked) = (Instant::now(), Instant::now(), None);
        while self.wrong > 0 || linked.is_none() {
            if self.listen(LOOK)? > 0 {
                heard = Instant::now();
            } else if heard.elapsed() > STALL {
                break;
            }
            if linked.is_none() && (self.found)()? {
                linked = Some(healed.elapsed());
            }
        }
        let right = healed.elapsed();
        self.listen_until(Instant::now() + AFTER)?;
        let bytes = self.taps.crossed()?.bytes - before;
        Ok(Healed { changed, linked: linked.unwrap_or(right), right, bytes, lost: self.wrong as u64 })
    }

    fn change(&mut self, user: u32) -> io::Result<()> {
        let view = &mut self.views[user as usize];
        self.wrong += usize::from(view.is_right());
        (view.said, view.owed, view.right) = (view.said + 1, self.across.audience(user), 0);
        let mut out = Vec::new();
        self.across.make(user, view.said, &mut out);
        self.wires.send(self.across.conn(user), &out)
    }

    fn listen_until(&mut self, end: Instant) -> io::Result<()> {
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.listen(left)?;
        }
        Ok(())
    }

    fn listen(&mut self, patience: Duration) -> io::Result<usize> {
        let Cut { wires, across, views, wrong, .. } = self;
        wires.listen(patience, |_, bytes| {
            across.states(bytes, |user, sequence, is_there, count| {
                let view = &mut views[user as usize];
                let was_right = view.is_right();
                match is_there {
                    true if sequence == view.said => view.right += count,
                    true => {}
                    false => (view.gone, view.right) = (view.gone + count, view.right.saturating_sub(count)),
                }
                *wrong = *wrong + usize::from(was_right) - usize::from(view.is_right());
            })
        })
    }
}
