//! An HTTP address as an operator writes it: scheme, host, port, path.

use std::net::IpAddr;

/// A service that is spoken to over HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The scheme is https.
    pub is_private: bool,
    /// A name or an IP address, without brackets.
    pub host: String,
    pub port: u16,
    /// Host and port as they stood there: what the Host header says.
    pub authority: String,
    /// Path and query; at least "/".
    pub path: String,
}

impl Endpoint {
    /// Reads `http://host[:port][/path][?query]`, or the same with https.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(url: &str) -> Result<Endpoint, &'static str> {
        if !url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err("there are letters in it that an address may not have");
        }
        let (is_private, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err("it begins neither with http:// nor with https://"),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let usual = if is_private { 443 } else { 80 };
        // An IPv6 address stands in brackets, because there are colons in it.
        let behind = authority.rfind(']').map_or(0, |bracket| bracket + 1);
        let (host, port) = match authority[behind..].find(':') {
            Some(colon) => (&authority[..behind + colon], authority[behind + colon + 1..].parse().ok().filter(|port| *port != 0)),
            None => (authority, Some(usual)),
        };
        let port = port.ok_or("the port is no number from 1 to 65535")?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if bare.is_empty() || bare.contains(['@', '[', ']']) {
            return Err("there is no host name in it, or more than that");
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Endpoint { is_private, host: bare.to_owned(), port, authority: authority.to_owned(), path })
    }

    /// Whether others can read what is said to it: in the clear, and over a network.
    pub fn is_exposed(&self) -> bool {
        let is_here = self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        !self.is_private && !is_here
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_address_is_read_and_what_is_not_is_refused_with_the_reason() {
        let read = |url: &str| Endpoint::parse(url).map(|e| (e.is_private, e.host, e.port, e.authority, e.path));
        let is = |private, host: &str, port, authority: &str, path: &str| {
            Ok((private, host.to_owned(), port, authority.to_owned(), path.to_owned()))
        };
        assert_eq!(read("http://127.0.0.1:9000/check"), is(false, "127.0.0.1", 9000, "127.0.0.1:9000", "/check"));
        assert_eq!(read("https://login.example.org"), is(true, "login.example.org", 443, "login.example.org", "/"));
        assert_eq!(read("http://[::1]:80/a?b=c:d@e"), is(false, "::1", 80, "[::1]:80", "/a?b=c:d@e"));
        assert_eq!(read("http://[::1]?key=1"), is(false, "::1", 80, "[::1]", "/?key=1"));
        let exposed = |url: &str| Endpoint::parse(url).unwrap().is_exposed();
        assert!(exposed("http://login.example.org") && exposed("http://10.0.0.1:9000/check"));
        assert!(!exposed("http://localhost:1") && !exposed("http://[::1]") && !exposed("https://login.example.org"));
        for broken in
            ["", "ftp://a", "http://", "http://:80", "http:///a", "http://a:0", "http://a:x", "http://a:70000", "http://a b"]
        {
            assert!(read(broken).is_err(), "{broken}");
        }
        for broken in ["http://me:secret@a/", "http://a/\r\nX: y", "http://a/\u{e9}", "http://a#b", "http://[::1/", "HTTP://a"] {
            assert!(read(broken).is_err(), "{broken}");
        }
    }
}
