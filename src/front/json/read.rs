//! Reading a client's JSON object: members are taken out by name and kind, and none may be left over.
//!
//! Lives on: every core. Pure. Invariants: depth and members are bounded, so what a message costs is in proportion to its length;
//! every fault says which member is wrong and what belongs there.

use base64::{Engine, prelude::BASE64_STANDARD};
use simd_json::prelude::*;
use simd_json::tape::Value;
use simd_json::{Buffers, Tape};
use smallvec::SmallVec;
use std::fmt;

/// Deepest nesting of objects and lists. At the limit: the message is refused.
pub const DEPTH: usize = 4;
/// Members of one object: more than any message has. At the limit: the message is refused.
pub const MEMBERS: usize = 16;
/// Elements of one list. At the limit: the message is refused.
pub const ELEMENTS: usize = 256;

/// What is wrong with a message, for whoever wrote the client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault(String);

impl Fault {
    pub fn new(text: impl Into<String>) -> Fault {
        Fault(text.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What reading takes, kept from one message to the next.
pub struct Reader {
    /// The message being read: strings are made plain in place.
    text: Vec<u8>,
    buffers: Buffers,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader { text: Vec::new(), buffers: Buffers::with_max_depth(0, DEPTH) }
    }
}

impl Reader {
    /// Parses a text.
    ///
    /// Errors: it's not JSON, or too deep.
    pub fn parse(&mut self, text: &str) -> Result<Tape<'_>, Fault> {
        self.text.clear();
        self.text.extend_from_slice(text.as_bytes());
        simd_json::to_tape_with_buffers(&mut self.text, &mut self.buffers)
            .map_err(|error| Fault(format!("a message is a JSON object, at most {DEPTH} levels deep ({error})")))
    }
}

/// The members of an object that were not taken yet.
pub struct Members<'t, 'i>(SmallVec<[(&'i str, Value<'t, 'i>); MEMBERS]>);

impl<'t, 'i> Members<'t, 'i> {
    pub fn of(value: Value<'t, 'i>, what: &str) -> Result<Members<'t, 'i>, Fault> {
        let object = value.as_object().ok_or_else(|| wrong(what, "an object"))?;
        let mut members = SmallVec::new();
        for member in object.iter() {
            if members.len() == MEMBERS {
                return Err(Fault(format!("{what} has more than {MEMBERS} members")));
            }
            members.push(member);
        }
        Ok(Members(members))
    }

    /// Takes a member out; one that is null might as well not be there.
    fn take(&mut self, name: &str) -> Option<Value<'t, 'i>> {
        let at = self.0.iter().position(|(member, _)| *member == name)?;
        let (_, value) = self.0.remove(at);
        (!value.is_null()).then_some(value)
    }

    fn take_as<T>(&mut self, name: &str, what: &str, read: impl FnOnce(Value<'t, 'i>) -> Option<T>) -> Result<Option<T>, Fault> {
        self.take(name).map(|value| read(value).ok_or_else(|| wrong(name, what))).transpose()
    }

    /// A string; absent, it is empty.
    pub fn text(&mut self, name: &str) -> Result<&'i str, Fault> {
        Ok(self.take_as(name, "a string", |value| value.into_string())?.unwrap_or_default())
    }

    pub fn required(&mut self, name: &str) -> Result<&'i str, Fault> {
        self.take_as(name, "a string", |value| value.into_string())?.ok_or_else(|| Fault(format!("{name} is missing")))
    }

    /// A whole number up to `most`; absent, it is 0.
    pub fn number(&mut self, name: &str, most: u64) -> Result<u64, Fault> {
        let what = "a whole number, not negative and not too large";
        Ok(self.take_as(name, what, |value| value.as_u64().filter(|number| *number <= most))?.unwrap_or_default())
    }

    /// A whole number from -128 to 127; absent, it is 0.
    pub fn small(&mut self, name: &str) -> Result<i8, Fault> {
        Ok(self.take_as(name, "a whole number from -128 to 127", |value| value.as_i8())?.unwrap_or_default())
    }

    pub fn flag(&mut self, name: &str, usual: bool) -> Result<bool, Fault> {
        Ok(self.take_as(name, "true or false", |value| value.as_bool())?.unwrap_or(usual))
    }

    /// Bytes in base64; absent, there are none.
    pub fn data(&mut self, name: &str) -> Result<Vec<u8>, Fault> {
        let decode = |value: Value<'t, 'i>| value.into_string().and_then(|text: &str| BASE64_STANDARD.decode(text).ok());
        Ok(self.take_as(name, "a string of base64", decode)?.unwrap_or_default())
    }

    /// Bytes, either as they are or in base64.
    pub fn text_or_data(&mut self, name: &str, base64_name: &str) -> Result<Vec<u8>, Fault> {
        let text = self.text(name)?;
        let data = self.data(base64_name)?;
        match (text, data) {
            (text, data) if data.is_empty() => Ok(text.as_bytes().to_vec()),
            ("", data) => Ok(data),
            _ => Err(Fault(format!("{name} and {base64_name} are the same thing: send one of them"))),
        }
    }

    /// One of `names`; its place among them. Absent, it is the first.
    pub fn choice(&mut self, name: &str, names: &[&str]) -> Result<u8, Fault> {
        let Some(value) = self.take(name) else { return Ok(0) };
        let place = value.into_string().and_then(|text: &str| names.iter().position(|known| *known == text));
        place.map(|place| place as u8).ok_or_else(|| wrong(name, &format!("one of {}", names.join(", "))))
    }

    pub fn texts(&mut self, name: &str) -> Result<Vec<&'i str>, Fault> {
        let read = |value: Value<'t, 'i>| {
            let list = value.as_array().filter(|list| list.len() <= ELEMENTS)?;
            list.iter().map(|element| element.into_string()).collect()
        };
        Ok(self.take_as(name, &format!("a list of at most {ELEMENTS} strings"), read)?.unwrap_or_default())
    }

    pub fn object(&mut self, name: &str) -> Result<Option<Members<'t, 'i>>, Fault> {
        self.take(name).map(|value| Members::of(value, name)).transpose()
    }

    /// Nothing may be left: a member that is misspelt, or not for this type, is a fault and not silence.
    pub fn done(self, what: &str) -> Result<(), Fault> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Fault(format!("{what} has no member {:?}", name.chars().take(40).collect::<String>()))),
        }
    }
}

fn wrong(name: &str, what: &str) -> Fault {
    Fault(format!("{name} must be {what}"))
}
