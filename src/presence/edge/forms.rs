//! An update in the words of other doors: written once for all the sessions here that take it so (issue 3: only the addressee
//! differs).
//!
//! Lives on: an edge of a node with such doors. Serves G2, C8. Invariant: nothing is written that no line takes.

use super::names::Names;
use super::{Edge, RandomState};
use crate::presence::frame;
use crate::wire::form::{Form, Writer};

/// The update that is being delivered, in each form that a line has asked for.
pub(super) struct Forms {
    writers: [Option<Writer>; Form::COUNT],
    written: [Vec<u8>; Form::COUNT],
}

impl Default for Forms {
    fn default() -> Forms {
        Forms { writers: [None; Form::COUNT], written: Default::default() }
    }
}

impl Edge {
    /// This node has doors that take events in other forms, written by these: publishers' names are kept from now on.
    pub fn serve_forms(&mut self, writers: &[(Form, Writer)], hasher: RandomState) {
        self.names = Some(Names::new(hasher));
        writers.iter().for_each(|&(form, writer)| self.forms.writers[form as usize] = Some(writer));
    }
}

impl Forms {
    /// Another update comes.
    #[inline]
    pub fn begin(&mut self) {
        self.written.iter_mut().for_each(Vec::clear);
    }

    /// What a line of this form is to get for an update's native frame.
    #[inline]
    pub fn get<'a>(&'a mut self, form: Form, frame: &'a [u8], names: Option<&Names>) -> &'a [u8] {
        if form == Form::Native {
            return frame;
        }
        if self.written[form as usize].is_empty() {
            self.write(form, frame, names);
        }
        &self.written[form as usize]
    }

    #[inline(never)]
    fn write(&mut self, form: Form, frame: &[u8], names: Option<&Names>) {
        let event = frame::event(frame);
        let writer = self.writers[form as usize].expect("a door's form has its writer");
        let jid = names.and_then(|names| names.get(event.head.user)).expect("whoever is watched here has a name");
        writer(&mut self.written[form as usize], jid, &event);
    }
}
