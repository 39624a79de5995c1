//! The stages of an update's way that are timed (G5), what log-ins wait for, and the histogram that each has.
//!
//! Lives on: every core and whoever reads its measurements. Invariant: all stages have one range and precision: they add up.

use hdrhistogram::Histogram;

macro_rules! stages {
    ($($name:ident, $metric:literal, $help:literal;)*) => {
        /// A part of an update's way. What one begins with is what the one before ends with.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Stage { $(#[doc = $help] $name,)* }

        impl Stage {
            pub const ALL: &'static [Stage] = &[$(Stage::$name),*];

            /// The label in metrics and the tag in interval logs.
            pub fn metric(self) -> &'static str {
                match self { $(Stage::$name => $metric,)* }
            }

            pub fn help(self) -> &'static str {
                match self { $(Stage::$name => $help,)* }
            }
        }
    };
}

stages! {
    Receive, "receive", "from the look at the completions until the bytes are with the door";
    Decode, "decode", "from bytes to a verified event";
    Apply, "apply", "the change of state at the home core";
    FanOut, "fan_out", "the walk over the core's subscribers of one update";
    RingWait, "ring_wait", "from the publication at one core until another core reads it";
    Encode, "encode", "one encoding of one update for a protocol that isn't native";
    FlushWait, "flush_wait", "from the first byte gathered for a connection until its send begins";
    Send, "send", "from the begin of a send until its completion is seen";
    EndToEnd, "end_to_end", "from the receive of an update until its bytes are gathered for the last subscriber of the core";
    LogInHook, "log_in_hook", "not of an update: from a log-in that the service of login.http decides until it has";
}

/// Times are told apart from this many nanoseconds on.
const FINEST_NANOS: u64 = 16;
/// Longer times count as this: one minute.
pub const LONGEST_NANOS: u64 = 60_000_000_000;
/// Two digits: a quantile is right to 1 %. Finer costs ten times the memory per digit, and cache with it.
const DIGITS: u8 = 2;

/// An empty histogram with the range and precision of every stage: 28 KB.
pub fn stage_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(FINEST_NANOS, LONGEST_NANOS, DIGITS).expect("the bounds are sound")
}
