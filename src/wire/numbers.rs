//! The schema's enums as serde values: their numbers, and no others.
//!
//! Lives on: any thread, it's pure. Serves M2.

use super::native::{Access, Copy, MessageKind, Show};
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! numbers {
    ($($name:ident)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_u8(self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let number = u8::deserialize(deserializer)?;
                let known = number <= $name::ENUM_MAX;
                known.then_some($name(number)).ok_or_else(|| {
                    D::Error::invalid_value(Unexpected::Unsigned(number.into()), &stringify!($name))
                })
            }
        }
    )*};
}

numbers! { Access Copy MessageKind Show }
