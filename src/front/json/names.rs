//! The names that JSON has for the numbers of the native protocol, each at the place of its number.
//!
//! Lives on: every core. Pure.

pub const SHOW: &[&str] = &["available", "chat", "away", "extended_away", "do_not_disturb", "unavailable"];
pub const ACTION: &[&str] = &["subscribe", "subscribed", "unsubscribe", "unsubscribed"];
pub const MESSAGE_KIND: &[&str] = &["normal", "chat", "group_chat", "headline", "error", "get", "set", "result", "failure"];
pub const COPY: &[&str] = &["none", "received", "sent"];
pub const ACCESS: &[&str] = &["own", "contacts", "everyone"];
pub const SUBSCRIPTION: &[&str] = &["none", "to", "from", "both"];

/// The name of a number that was verified.
pub fn name(names: &[&'static str], number: u8) -> &'static str {
    names[usize::from(number)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::native as n;

    /// The schema's own name, as this protocol writes names.
    fn snake(name: Option<&str>) -> String {
        let name = name.expect("a number without gaps");
        let mut snake = String::new();
        for (at, letter) in name.char_indices() {
            if letter.is_uppercase() && at > 0 {
                snake.push('_');
            }
            snake.extend(letter.to_lowercase());
        }
        snake
    }

    #[test]
    fn every_number_has_the_name_of_the_schema() {
        let of = |most: u8, name: &dyn Fn(u8) -> Option<&'static str>| (0..=most).map(|n| snake(name(n))).collect::<Vec<_>>();
        assert_eq!(SHOW, of(n::Show::ENUM_MAX, &|number| n::Show(number).variant_name()));
        assert_eq!(ACTION, of(n::Action::ENUM_MAX, &|number| n::Action(number).variant_name()));
        assert_eq!(MESSAGE_KIND, of(n::MessageKind::ENUM_MAX, &|number| n::MessageKind(number).variant_name()));
        assert_eq!(COPY, of(n::Copy::ENUM_MAX, &|number| n::Copy(number).variant_name()));
        assert_eq!(ACCESS, of(n::Access::ENUM_MAX, &|number| n::Access(number).variant_name()));
        assert_eq!(SUBSCRIPTION, of(n::SubscriptionState::ENUM_MAX, &|number| n::SubscriptionState(number).variant_name()));
    }
}
