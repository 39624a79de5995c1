//! The HTTP/1.1 request that opens a WebSocket (RFC 6455 section 4.2), and its answers.
//!
//! Lives on: the core that owns the connection. Pure. Invariants: a head is parsed once, when it is complete; it never outgrows
//! [`HEAD_BYTES`]; whatever came instead of a good request, the peer gets an HTTP answer that says what to do.

use super::pages::{self, Page};
use super::{Protocol, Rules};
use crate::base::reason::Reason;
use base64::{Engine, prelude::BASE64_STANDARD};
use sha1::{Digest, Sha1};
use thin_vec::ThinVec;

/// Longest request line and headers together, in bytes. At the limit: 431.
pub const HEAD_BYTES: usize = 8 << 10;
/// Headers of one request. At the limit: 431.
pub const HEADERS: usize = 32;
/// RFC 6455 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// An answer that doesn't open a WebSocket: the connection closes after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    status: &'static str,
    /// Headers beyond those that every answer has, each with its line end.
    headers: &'static str,
    text: String,
}

impl Refusal {
    pub fn new(status: &'static str, text: impl Into<String>) -> Refusal {
        Refusal { status, headers: "", text: text.into() }
    }

    /// The connection ends before its request is whole.
    pub fn ended(reason: Reason) -> Refusal {
        let status = if reason == Reason::LogInTooSlow { "408 Request Timeout" } else { "503 Service Unavailable" };
        Refusal::new(status, reason.text())
    }

    pub fn write(&self, reply: &mut Vec<u8>) {
        let body = format!("{}\n", self.text);
        let headers = format!("Content-Type: text/plain; charset=utf-8\r\n{}", self.headers);
        answer(reply, self.status, &headers, body.as_bytes());
    }
}

/// Appends an answer after which the connection closes.
fn answer(reply: &mut Vec<u8>, status: &str, headers: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len());
    reply.extend_from_slice(head.as_bytes());
    reply.extend_from_slice(body);
}

/// What a complete request was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// The connection is a WebSocket from here on.
    Accepted(Protocol),
    /// A page was asked for and given, or the request refused: the connection closes.
    Answered,
}

/// Reads a request as far as the input goes, and answers one that is complete. `kept` holds what came before; what follows the
/// request stays in `input`. `scheme`: `ws`, or `wss` on a private connection.
pub fn read(kept: &mut ThinVec<u8>, input: &mut &[u8], rules: &Rules, scheme: &str, reply: &mut Vec<u8>) -> Option<Request> {
    let before = kept.len();
    let room = HEAD_BYTES - before;
    kept.extend_from_slice(&input[..input.len().min(room)]);
    let Some(end) = head_end(kept, before) else {
        *input = &[];
        if kept.len() < HEAD_BYTES {
            return None;
        }
        let text = format!("the request line and headers are longer than {HEAD_BYTES} bytes: send fewer headers");
        Refusal::new("431 Request Header Fields Too Large", text).write(reply);
        return Some(Request::Answered);
    };
    *input = &input[end - before..];
    let head = std::mem::take(kept);
    Some(match parse(&head[..end], rules) {
        Ok(Asked::Socket { protocol, key }) => {
            accept(reply, protocol, &key);
            Request::Accepted(protocol)
        }
        Ok(Asked::Page { page, host, with_body }) => {
            let url = rules.url.clone().unwrap_or_else(|| format!("{scheme}://{host}"));
            give(reply, page, &url, with_body);
            Request::Answered
        }
        Err(refusal) => {
            refusal.write(reply);
            Request::Answered
        }
    })
}

/// The end of the empty line that ends a head; `before` bytes were looked at already.
fn head_end(bytes: &[u8], before: usize) -> Option<usize> {
    let from = before.saturating_sub(3);
    let ends = |at: &usize| bytes[..*at].ends_with(b"\n\r\n") || bytes[..*at].ends_with(b"\n\n");
    (from + 1..=bytes.len()).filter(|at| bytes[at - 1] == b'\n').find(ends)
}

fn accept(reply: &mut Vec<u8>, protocol: Protocol, key: &str) {
    let proof = BASE64_STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {proof}\r\n\
         Sec-WebSocket-Protocol: {}\r\n\r\n",
        protocol.name()
    );
    reply.extend_from_slice(head.as_bytes());
}

/// Pages are public: any other page may read them (XEP-0156 section 5 asks for it).
fn give(reply: &mut Vec<u8>, page: &Page, url: &str, with_body: bool) {
    let headers = format!(
        "Content-Type: {}\r\nAccess-Control-Allow-Origin: *\r\nX-Content-Type-Options: nosniff\r\n\
         Content-Security-Policy: default-src 'self'; connect-src 'self' ws: wss:\r\n",
        page.content_type
    );
    let body = page.body(url);
    answer(reply, "200 OK", &headers, body.as_bytes());
    if !with_body {
        reply.truncate(reply.len() - body.len());
    }
}

/// What a sound request asks for.
enum Asked<'a> {
    Socket { protocol: Protocol, key: String },
    Page { page: &'static Page, host: &'a str, with_body: bool },
}

/// The headers that matter here.
#[derive(Default)]
struct Headers<'a> {
    host: Option<&'a str>,
    origin: Option<&'a str>,
    upgrade: bool,
    connection: bool,
    version: Option<&'a str>,
    key: Option<&'a str>,
    protocols: Vec<&'a str>,
}

fn parse<'a>(head: &'a [u8], rules: &Rules) -> Result<Asked<'a>, Refusal> {
    let too_large = |text: String| Refusal::new("431 Request Header Fields Too Large", text);
    let bad = |text: String| Refusal::new("400 Bad Request", text);
    let mut lines = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut lines);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(bad("this is no HTTP request: speak HTTP/1.1".into())),
        Err(httparse::Error::TooManyHeaders) => return Err(too_large(format!("more than {HEADERS} headers: send fewer"))),
        Err(error) => return Err(bad(format!("this is no HTTP request ({error}): speak HTTP/1.1"))),
    }
    let path = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
    let is_get = request.method == Some("GET");
    let headers = Headers::read(request.headers)?;
    let host = headers.host()?;
    if let Some(page) = pages::find(path, rules).filter(|_| !headers.upgrade) {
        return match request.method {
            Some("GET" | "HEAD") => Ok(Asked::Page { page, host, with_body: is_get }),
            _ => Err(not_allowed("GET, HEAD")),
        };
    }
    let spoken = rules.spoken(path);
    if spoken.is_empty() {
        return Err(Refusal::new("404 Not Found", "there is nothing here: WebSockets are at /ws and /xmpp-websocket"));
    }
    if !is_get {
        return Err(not_allowed("GET"));
    }
    if request.version != Some(1) {
        return Err(bad("WebSocket needs HTTP/1.1".into()));
    }
    headers.check(host, &spoken, rules)
}

fn not_allowed(allow: &'static str) -> Refusal {
    let headers = if allow == "GET" { "Allow: GET\r\n" } else { "Allow: GET, HEAD\r\n" };
    Refusal { status: "405 Method Not Allowed", headers, text: format!("only {allow} is answered here") }
}

impl<'a> Headers<'a> {
    fn read(lines: &[httparse::Header<'a>]) -> Result<Headers<'a>, Refusal> {
        let mut headers = Headers::default();
        for line in lines {
            let value = std::str::from_utf8(line.value).unwrap_or("\0").trim();
            match line.name.to_ascii_lowercase().as_str() {
                "host" => once(&mut headers.host, value, "Host")?,
                "origin" => once(&mut headers.origin, value, "Origin")?,
                "sec-websocket-version" => once(&mut headers.version, value, "Sec-WebSocket-Version")?,
                "sec-websocket-key" => once(&mut headers.key, value, "Sec-WebSocket-Key")?,
                "upgrade" => headers.upgrade |= words(value).any(|word| word.eq_ignore_ascii_case("websocket")),
                "connection" => headers.connection |= words(value).any(|word| word.eq_ignore_ascii_case("upgrade")),
                "sec-websocket-protocol" => headers.protocols.extend(words(value)),
                "transfer-encoding" => return Err(Refusal::new("400 Bad Request", "send no body here")),
                "content-length" if value != "0" => return Err(Refusal::new("400 Bad Request", "send no body here")),
                _ => {}
            }
        }
        Ok(headers)
    }

    /// What the client calls us: a name or an address, and perhaps a port (RFC 9110 7.2).
    fn host(&self) -> Result<&'a str, Refusal> {
        let is_sound =
            |host: &&str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~:[]%".contains(&b)) && !host.is_empty();
        let bad = || Refusal::new("400 Bad Request", "requests carry a Host header with a name or an address: send it");
        self.host.filter(is_sound).ok_or_else(bad)
    }

    /// RFC 6455 4.2.1 and 4.2.2.
    fn check(&self, host: &str, spoken: &[Protocol], rules: &Rules) -> Result<Asked<'a>, Refusal> {
        let bad = |text: String| Err(Refusal::new("400 Bad Request", text));
        let upgrade = |headers, text: &str| Err(Refusal { status: "426 Upgrade Required", headers, text: text.to_owned() });
        if !self.upgrade || !self.connection {
            let headers = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
            return upgrade(headers, "this is a WebSocket: send Upgrade: websocket and Connection: Upgrade");
        }
        if self.version != Some("13") {
            return upgrade("Sec-WebSocket-Version: 13\r\n", "only version 13 of WebSocket is spoken: RFC 6455");
        }
        let Some(key) = self.key.filter(|key| BASE64_STANDARD.decode(key).is_ok_and(|key| key.len() == 16)) else {
            return bad("Sec-WebSocket-Key is the base64 of 16 bytes".into());
        };
        if !self.origin.is_none_or(|origin| rules.lets_in(origin, host)) {
            let text = "pages of this origin may not connect: the operator lists those that may";
            return Err(Refusal::new("403 Forbidden", text));
        }
        let chosen = self.protocols.iter().find_map(|name| spoken.iter().find(|protocol| protocol.name() == *name));
        match chosen {
            Some(&protocol) => Ok(Asked::Socket { protocol, key: key.to_owned() }),
            None => {
                let names: Vec<&str> = spoken.iter().map(|protocol| protocol.name()).collect();
                bad(format!("offer a sub-protocol that is spoken here (Sec-WebSocket-Protocol): {}", names.join(" or ")))
            }
        }
    }
}

fn once<'a>(place: &mut Option<&'a str>, value: &'a str, name: &str) -> Result<(), Refusal> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refusal::new("400 Bad Request", format!("two {name} headers: send one"))),
    }
}

/// The members of a list (RFC 9110 5.6.1).
fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|word| !word.is_empty())
}
