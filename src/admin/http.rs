//! HTTP/1.1 as far as the admin API needs it: bytes -> requests, responses -> bytes.
//!
//! Pure. Invariants: whatever the bytes are, `parse` gives a request, asks for more or names a fault with its status; it never
//! looks beyond the limits; what follows a request in the buffer is the next one.

use std::fmt::Write;

/// Longest request line and headers together, in bytes. At the limit: 431.
pub const HEAD_BYTES: usize = 16 << 10;
/// Headers of one request. At the limit: 431.
pub const HEADERS: usize = 64;
/// Longest body of a request, in bytes. At the limit: 413.
pub const BODY_BYTES: usize = 64 << 10;

/// A request, decoded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Request {
    pub method: String,
    /// Without the query, percent-decoded.
    pub path: String,
    /// Percent-decoded, in order.
    pub query: Vec<(String, String)>,
    pub host: Option<String>,
    /// From `Authorization: Bearer`.
    pub token: Option<String>,
    /// Whether the body says it is JSON.
    pub is_json: bool,
    pub keep_alive: bool,
    pub body: Vec<u8>,
}

impl Request {
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Why bytes are no request. The connection closes after it was said, as nobody knows where the next request would begin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    pub status: u16,
    pub text: String,
}

fn fault(status: u16, text: impl Into<String>) -> Fault {
    Fault { status, text: text.into() }
}

/// What the bytes at the beginning of the buffer are.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The head isn't complete.
    More,
    /// The head is complete, the body not. `waits`: the client sends it once it got "100 Continue".
    MoreBody { waits: bool },
    /// A request, and how many bytes it took.
    Whole(Box<Request>, usize),
}

/// Looks for a request at the beginning of the buffer.
pub fn parse(buffer: &[u8]) -> Result<Parsed, Fault> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let head_bytes = match head.parse(&buffer[..buffer.len().min(HEAD_BYTES)]) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if buffer.len() >= HEAD_BYTES => {
            return Err(fault(431, format!("the request line and headers are longer than {HEAD_BYTES} bytes: send fewer headers")));
        }
        Ok(httparse::Status::Partial) => return Ok(Parsed::More),
        Err(httparse::Error::TooManyHeaders) => return Err(fault(431, format!("more than {HEADERS} headers: send fewer"))),
        Err(httparse::Error::Version) => return Err(fault(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")),
        Err(error) => return Err(fault(400, format!("this is no HTTP request ({error}): speak HTTP/1.1"))),
    };
    let (mut request, body_bytes, waits) = read_head(&head)?;
    let end = head_bytes + body_bytes;
    if buffer.len() < end {
        return Ok(Parsed::MoreBody { waits });
    }
    request.body = buffer[head_bytes..end].to_vec();
    Ok(Parsed::Whole(Box::new(request), end))
}

/// The request without its body, the length of the body, and whether the client waits before it sends that.
fn read_head(head: &httparse::Request) -> Result<(Request, usize, bool), Fault> {
    let target = head.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let not_text = || fault(400, "the target has a '%' that isn't followed by two hexadecimal digits, or isn't UTF-8");
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((percent_decode(&name.replace('+', " "))?, percent_decode(&value.replace('+', " "))?))
    };
    let mut request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: percent_decode(path).ok_or_else(not_text)?,
        query: query.split('&').filter(|p| !p.is_empty()).map(pair).collect::<Option<_>>().ok_or_else(not_text)?,
        keep_alive: head.version == Some(1),
        ..Request::default()
    };
    let (mut body_bytes, mut waits) = (None, false);
    for header in head.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
        match header.name.to_ascii_lowercase().as_str() {
            "content-length" => {
                let bytes = content_length(value)?;
                if body_bytes.replace(bytes).is_some_and(|other| other != bytes) {
                    return Err(fault(400, "two different Content-Length headers: send one"));
                }
            }
            "transfer-encoding" => return Err(fault(411, "chunked bodies aren't taken here: send Content-Length")),
            "host" if request.host.replace(value.to_owned()).is_some() => return Err(fault(400, "two Host headers: send one")),
            "authorization" => request.token = bearer(value),
            "content-type" => request.is_json = is_json(value),
            "connection" => request.keep_alive &= !value.split(',').any(|word| word.trim().eq_ignore_ascii_case("close")),
            "expect" => waits = value.eq_ignore_ascii_case("100-continue"),
            _ => {}
        }
    }
    if request.host.is_none() && head.version == Some(1) {
        return Err(fault(400, "HTTP/1.1 requests carry a Host header: send it"));
    }
    Ok((request, body_bytes.unwrap_or(0), waits))
}

fn content_length(value: &str) -> Result<usize, Fault> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return Err(fault(400, "Content-Length is no number"));
    }
    let too_long = || fault(413, format!("the body is longer than {BODY_BYTES} bytes: send less"));
    value.parse().ok().filter(|&bytes| bytes <= BODY_BYTES).ok_or_else(too_long)
}

fn bearer(value: &str) -> Option<String> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

fn is_json(value: &str) -> bool {
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// `None`: a '%' without two digits, or not UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || (rest.next()? as char).to_digit(16);
                (digit()? << 4 | digit()?) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Text as a part of a path or a value of a query.
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' => encoded.push(byte as char),
            other => write!(encoded, "%{other:02X}").expect("writing to memory does not fail"),
        }
    }
    encoded
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    /// The methods there are, for 405.
    pub allow: Option<String>,
    pub body: Vec<u8>,
}

impl Response {
    /// The bytes of the answer. `head`: to a HEAD request, which gets no body. `close`: the connection closes after it.
    pub fn encode(&self, head: bool, close: bool) -> Vec<u8> {
        let mut text = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
            self.status,
            status_text(self.status),
            self.content_type,
            self.body.len()
        );
        if let Some(allow) = &self.allow {
            text.push_str(&format!("Allow: {allow}\r\n"));
        }
        if self.status == 401 {
            text.push_str("WWW-Authenticate: Bearer\r\n");
        }
        text.push_str(if close { "Connection: close\r\n\r\n" } else { "\r\n" });
        let mut bytes = text.into_bytes();
        if !head {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

fn status_text(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> (Request, usize) {
        match parse(text.as_bytes()) {
            Ok(Parsed::Whole(request, bytes)) => (*request, bytes),
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn status(text: &str) -> u16 {
        parse(text.as_bytes()).expect_err(text).status
    }

    #[test]
    fn a_request_is_read_with_its_query_token_and_body() {
        let text = "POST /users/a%40b?after=x+y&limit=5& HTTP/1.1\r\nHost: h\r\nauthorization: bearer s3cret\r\n\
                    Content-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\n";
        let (request, bytes) = whole(text);
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/users/a@b"));
        assert_eq!((request.query("after"), request.query("limit"), request.query("x")), (Some("x y"), Some("5"), None));
        assert_eq!((request.token.as_deref(), request.is_json, request.keep_alive), (Some("s3cret"), true, true));
        assert_eq!((request.body.as_slice(), &text[bytes..]), (&b"{}"[..], "GET / HTTP/1.1\r\n"));
    }

    #[test]
    fn the_connection_stays_unless_somebody_wants_it_closed() {
        assert!(whole("GET / HTTP/1.1\r\nHost: h\r\n\r\n").0.keep_alive);
        assert!(!whole("GET / HTTP/1.1\r\nHost: h\r\nConnection: foo, Close\r\n\r\n").0.keep_alive);
        assert!(!whole("GET / HTTP/1.0\r\n\r\n").0.keep_alive);
    }

    #[test]
    fn what_breaks_the_rules_gets_the_status_for_it() {
        let get = |headers: &str| format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
        assert_eq!(status("\0\0\0\0"), 400);
        assert_eq!(status("GET / HTTP/2.0\r\n\r\n"), 505);
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status("GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
        assert_eq!(status("GET /%ff HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
        assert_eq!(status(&get("Host: other\r\n")), 400);
        assert_eq!(status(&get("Content-Length: 1\r\nContent-Length: 2\r\n")), 400);
        assert_eq!(status(&get("Content-Length: +1\r\n")), 400);
        assert_eq!(status(&get("Content-Length: 65537\r\n")), 413);
        assert_eq!(status(&get("Content-Length: 99999999999999999999999\r\n")), 413);
        assert_eq!(status(&get("Transfer-Encoding: chunked\r\n")), 411);
        assert_eq!(status(&get(&"A: b\r\n".repeat(HEADERS))), 431);
        assert_eq!(status(&format!("GET /{} HTTP/1.1\r\n", "x".repeat(HEAD_BYTES))), 431);
    }

    #[test]
    fn a_body_that_is_still_to_come_is_waited_for() {
        let head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n";
        assert_eq!(parse(head.as_bytes()), Ok(Parsed::More));
        assert_eq!(parse(format!("{head}\r\nab").as_bytes()), Ok(Parsed::MoreBody { waits: false }));
        assert_eq!(parse(format!("{head}Expect: 100-continue\r\n\r\n").as_bytes()), Ok(Parsed::MoreBody { waits: true }));
        assert_eq!(whole(&format!("{head}\r\nabc")).0.body, b"abc");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_mangled_request_makes_it_panic(at in 0usize..80, byte in any::<u8>(), cut in 0usize..90) {
            let valid = b"POST /users?x=%41 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nabcd";
            let mut bytes = valid.to_vec();
            bytes[at] = byte;
            let _ = parse(&bytes[..cut.min(bytes.len())]);
        }

        #[test]
        fn any_text_survives_a_path_and_a_query(text in any::<String>()) {
            let encoded = percent_encode(&text);
            let (request, _) = whole(&format!("GET /{encoded}?q={encoded} HTTP/1.1\r\nHost: h\r\n\r\n"));
            prop_assert_eq!(&request.path[1..], &text);
            prop_assert_eq!(request.query("q"), Some(text.as_str()));
        }
    }
}
