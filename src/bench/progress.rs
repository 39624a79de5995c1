//! A bar on the terminal while something takes its time; nothing when stderr is no terminal, or when a program reads the output.
//!
//! Lives on: the generator's thread.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

const STYLE: &str = "{msg:18} {wide_bar} {pos:>10}/{len} {elapsed_precise}";

pub struct Progress(ProgressBar);

impl Progress {
    pub fn shown(shown: bool) -> Progress {
        let target = if shown { ProgressDrawTarget::stderr_with_hz(5) } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template(STYLE).expect("the template is sound");
        Progress(ProgressBar::with_draw_target(Some(0), target).with_style(style))
    }

    /// The next piece of work, of so many steps.
    pub fn begin(&self, what: &'static str, steps: u64) {
        self.0.reset();
        self.0.set_message(what);
        self.0.set_length(steps);
    }

    pub fn at(&self, step: u64) {
        self.0.set_position(step);
    }

    /// The next piece of work, of this length; `at_time` tells how far it is.
    pub fn begin_time(&self, what: &'static str, time: Duration) {
        self.begin(what, time.as_millis() as u64);
    }

    pub fn at_time(&self, passed: Duration) {
        self.at(passed.as_millis() as u64);
    }

    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}
