//! Writing JSON (RFC 8259) into a buffer, object by object.
//!
//! Lives on: every core. Pure. Invariant: what is written is sound JSON whatever the values; nothing is allocated but room in the
//! buffer.

use base64::{display::Base64Display, prelude::BASE64_STANDARD};
use std::io::Write;

/// An object that is being written. Members that have their usual value are left out by the methods that say so.
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> Object<'a> {
    /// Appends an object with the members that `write` adds.
    pub fn write(out: &'a mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
        out.push(b'{');
        let mut object = Object { out, is_empty: true };
        write(&mut object);
        object.out.push(b'}');
    }

    /// The start of a member: its value is to follow.
    #[inline]
    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    #[inline]
    pub fn text(&mut self, name: &str, value: &str) {
        string(self.name(name), value);
    }

    /// Left out when it is empty.
    #[inline]
    pub fn text_if_any(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    #[inline]
    pub fn number(&mut self, name: &str, value: impl Into<i128>) {
        integer(self.name(name), value.into());
    }

    /// Left out when it is 0.
    #[inline]
    pub fn number_if_any(&mut self, name: &str, value: impl Into<i128>) {
        let value = value.into();
        if value != 0 {
            self.number(name, value);
        }
    }

    /// Left out when it is false.
    pub fn flag_if_set(&mut self, name: &str, value: bool) {
        if value {
            self.name(name).extend_from_slice(b"true");
        }
    }

    pub fn flag(&mut self, name: &str, value: bool) {
        self.name(name).extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// In base64 (RFC 4648 4).
    pub fn data(&mut self, name: &str, value: &[u8]) {
        let out = self.name(name);
        write!(out, "\"{}\"", Base64Display::new(value, &BASE64_STANDARD)).expect("a buffer takes everything");
    }

    /// In base64; left out when there are none.
    pub fn data_if_any(&mut self, name: &str, value: &[u8]) {
        if !value.is_empty() {
            self.data(name, value);
        }
    }

    /// Bytes that mostly are text: as they are when they are UTF-8, or else in base64, as `NAME_base64`. Left out when there are
    /// none.
    pub fn text_or_data(&mut self, name: &str, base64_name: &str, value: &[u8]) {
        match std::str::from_utf8(value) {
            Ok(text) => self.text_if_any(name, text),
            Err(_) => self.data(base64_name, value),
        }
    }

    #[inline]
    pub fn object(&mut self, name: &str, write: impl FnOnce(&mut Object<'_>)) {
        Object::write(self.name(name), write);
    }

    pub fn list<T>(&mut self, name: &str, items: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Vec<u8>, T)) {
        let out = self.name(name);
        out.push(b'[');
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write(out, item);
        }
        out.push(b']');
    }
}

/// Appends a string (RFC 8259 7). Nearly all have nothing to escape and are copied in one go.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        out.extend_from_slice(&rest[..at]);
        escape(out, rest[at]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => return write!(out, "\\u{byte:04x}").expect("a buffer takes everything"),
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn integer(out: &mut Vec<u8>, value: i128) {
    write!(out, "{value}").expect("a buffer takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_string_is_read_back(text: String) {
            let mut out = Vec::new();
            string(&mut out, &text);
            prop_assert_eq!(simd_json::serde::from_slice::<String>(&mut out).unwrap(), text);
        }
    }

    #[test]
    fn usual_values_are_left_out() {
        let mut out = Vec::new();
        Object::write(&mut out, |o| {
            o.text("type", "x");
            o.text_if_any("a", "");
            o.number_if_any("b", 0u32);
            o.flag_if_set("c", false);
            o.data_if_any("d", b"");
            o.number("e", -5i8);
            o.object("f", |o| o.text_or_data("g", "g_base64", b"\xff"));
            o.list("h", [1, 2], integer);
        });
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"type":"x","e":-5,"f":{"g_base64":"/w=="},"h":[1,2]}"#);
    }
}
