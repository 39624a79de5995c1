use fanal::sim::{Options, run, Canary};
fn main() {
    let args: Vec<u64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let (seed, seeds, steps, tail) = (args[0], args[1], args[2], args.get(3).copied().unwrap_or(0));
    let canary = match args.get(4) { Some(1) => Some(Canary::RevokeLost), Some(2) => Some(Canary::PutOffLost), Some(3) => Some(Canary::UpdateTwice), Some(4) => Some(Canary::CommitForgotten), Some(5) => Some(Canary::MessageLost), Some(6) => Some(Canary::DoneLost), Some(7) => Some(Canary::LineKept), Some(8) => Some(Canary::OldAgain), _ => None };
    if tail == 0 { std::panic::set_hook(Box::new(|_| ())); }
    let mut kinds = std::collections::BTreeMap::<String, (u64, u64, String)>::new();
    let t = std::time::Instant::now();
    let mut total = [0u64; 6];
    for s in seed..seed + seeds {
        match run(Options { seed: s, steps, canary, tail: tail as usize }) {
            Ok(sum) => { for (t, v) in total.iter_mut().zip([sum.updates, sum.deliveries, sum.conflated, sum.changes, sum.messages, sum.crossings]) { *t += v; }
               if seeds == 1 { println!("{sum:?}"); } }
            Err(f) => {
                if tail > 0 { println!("{f}"); }
                let what: String = f.broken.what.chars().filter(|c| !c.is_ascii_digit()).take(60).collect();
                let e = kinds.entry(format!("{:?} {what}", f.broken.check)).or_insert((0, s, f.broken.what.clone()));
                e.0 += 1;
            }
        }
    }
    println!("{:?} updates/deliveries/conflated/changes/messages/crossings {total:?}", t.elapsed());
    for (k, v) in kinds { println!("{} x (seed {}) {k}\n      {}", v.0, v.1, v.2.chars().take(500).collect::<String>()); }
}
