//! Reading: a stream of any byte pieces becomes its header, whole stanzas, and its end.

use super::{ATTRIBUTES, Attribute, DEPTH, ELEMENTS, Element, Fault, Node, TOKEN_BYTES, plain, write};
use rxml::error::EndOrError;
use rxml::{AttrMap, Event, Namespace, Options, Parse, Parser, RawEvent, RawParser, WithOptions};

/// Longest opening of a stream, its XML declaration included, in bytes. At the limit: [`Fault::TooLarge`].
pub const HEADER_BYTES: usize = 4096;
/// The opening of nearly every stream, as far as later elements depend on it.
const USUAL_HEADER: &str = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
/// The default namespace that it declares.
const CLIENT: Namespace<'static> = Namespace::from_str("jabber:client");
/// What elements that must declare their namespaces themselves stand in.
const BARE_HEADER: &str = "<x>";

/// What an operator may bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Longest stanza, in bytes as sent. RFC 6120 13.12: not below 10,000. At the limit: [`Fault::TooLarge`].
    pub stanza_bytes: usize,
}

/// What a stream consists of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    Header(Header),
    /// A stanza, or another element at the first level.
    Element(Element),
    /// The closing tag.
    End,
}

/// The opening tag of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Its name, namespace and attributes; it has no nodes.
    pub tag: Element,
    /// The default namespace it declares: the one of its stanzas; empty when it declares none.
    pub content: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Stage {
    /// Before the opening tag, or within it.
    #[default]
    Opening,
    Open,
    /// The opening tag was an empty element: its end is still to be told.
    Ending,
    Ended,
}

/// A parser that is where nearly every stream is between two stanzas: shared by the streams of a core, since telling a new one the
/// stream's opening costs half as much as a stanza, and one for each would cost a kilobyte of every idle connection.
#[derive(Default)]
pub struct Parsers {
    spare: Option<Box<Partial>>,
}

impl Parsers {
    /// A parser for the next stanza of a stream with this opening.
    fn take(&mut self, header: Option<&str>) -> Result<Box<Partial>, Fault> {
        match (header, self.spare.take()) {
            (None, Some(spare)) => Ok(spare),
            (header, _) => Partial::after(header.unwrap_or(USUAL_HEADER)),
        }
    }

    /// One that is between two stanzas. What it holds is bounded by [`TOKEN_BYTES`], [`DEPTH`] and [`ATTRIBUTES`].
    fn put(&mut self, header: Option<&str>, parser: Option<Box<Partial>>) {
        if header.is_none() && parser.is_some() {
            self.spare = parser;
        }
    }
}

/// Reads one stream. It keeps a parser only while something is incomplete.
#[derive(Default)]
pub struct Reader {
    /// The stream's opening, when it isn't the usual one.
    header: Option<Box<str>>,
    partial: Option<Box<Partial>>,
    stage: Stage,
}

/// Something that is not complete yet.
struct Partial {
    parser: Parser,
    /// The opening as it came. Empty from then on.
    opening: Vec<u8>,
    /// Bytes of it so far; 0 between stanzas.
    bytes: usize,
    /// Elements that began in this stanza.
    begun: usize,
    /// Those that have not ended, outermost first.
    open: Vec<Element>,
}

impl Partial {
    fn new() -> Box<Partial> {
        let options = Options { max_token_length: TOKEN_BYTES, ..Options::default() };
        let parser = Parser::with_options(options);
        Box::new(Partial { parser, opening: Vec::new(), bytes: 0, begun: 0, open: Vec::new() })
    }

    /// One that is where a stream with this opening is between two stanzas.
    fn after(header: &str) -> Result<Box<Partial>, Fault> {
        let mut partial = Partial::new();
        match partial.parser.parse(&mut header.as_bytes(), false) {
            Ok(Some(Event::StartElement(..))) => Ok(partial),
            _ => Err(Fault::NotWellFormed),
        }
    }

    /// The next event within so many bytes. `None`: the bytes are used up.
    fn event(&mut self, bytes: &mut &[u8], most: usize) -> Result<Option<Event>, Fault> {
        let allowed = bytes.len().min(most.saturating_sub(self.bytes));
        let mut window = &bytes[..allowed];
        let event = self.parser.parse(&mut window, false);
        let used = allowed - window.len();
        self.bytes += used;
        *bytes = &bytes[used..];
        match event {
            Ok(event) => Ok(event),
            Err(EndOrError::Error(error)) => Err(fault(error)),
            Err(EndOrError::NeedMoreData) if bytes.is_empty() => Ok(None),
            Err(EndOrError::NeedMoreData) => Err(Fault::TooLarge),
        }
    }

    fn begin(&mut self, element: Element) -> Result<(), Fault> {
        self.begun += 1;
        if self.open.len() >= DEPTH {
            return Err(Fault::TooDeep);
        }
        if element.attributes.len() > ATTRIBUTES || self.begun > ELEMENTS {
            return Err(Fault::TooMany);
        }
        self.open.push(element);
        Ok(())
    }

    fn say(&mut self, text: String) -> Result<(), Fault> {
        match self.open.last_mut() {
            None => Err(Fault::Stray),
            Some(element) => {
                match element.nodes.last_mut() {
                    Some(Node::Text(before)) => before.push_str(&text),
                    _ => element.nodes.push(Node::Text(text)),
                }
                Ok(())
            }
        }
    }

    /// An element ends: the stream itself, a part of a stanza (then there is nothing to say), or the stanza.
    fn end(&mut self) -> Option<Item> {
        let Some(element) = self.open.pop() else { return Some(Item::End) };
        match self.open.last_mut() {
            Some(outer) => {
                outer.nodes.push(Node::Element(element));
                None
            }
            None => {
                (self.bytes, self.begun) = (0, 0);
                Some(Item::Element(element))
            }
        }
    }
}

impl Reader {
    /// The next item, or `None` when the bytes are used up: call until then, so that nothing is kept for no reason. What comes
    /// after the stream's end is dropped.
    ///
    /// Errors: the fault; don't call again after one.
    pub fn next(&mut self, bytes: &mut &[u8], bounds: Bounds, parsers: &mut Parsers) -> Result<Option<Item>, Fault> {
        match self.stage {
            Stage::Opening => self.opening(bytes),
            Stage::Open => self.stanza(bytes, bounds, parsers),
            Stage::Ending => {
                self.stage = Stage::Ended;
                Ok(Some(Item::End))
            }
            Stage::Ended => {
                *bytes = &[];
                Ok(None)
            }
        }
    }

    fn opening(&mut self, bytes: &mut &[u8]) -> Result<Option<Item>, Fault> {
        if self.partial.is_none() && skip_space(bytes) {
            return Ok(None);
        }
        let partial = self.partial.get_or_insert_with(Partial::new);
        loop {
            let before = *bytes;
            let event = partial.event(bytes, HEADER_BYTES)?;
            partial.opening.extend_from_slice(&before[..before.len() - bytes.len()]);
            match event {
                None => return Ok(None),
                Some(Event::XmlDeclaration(..)) => {}
                Some(Event::StartElement(_, (namespace, name), attributes)) => {
                    let tag = Element { name, namespace, attributes: listed(attributes), nodes: Vec::new() };
                    let (content, header) = declarations(&partial.opening)?;
                    self.stage = if partial.opening.ends_with(b"/>") { Stage::Ending } else { Stage::Open };
                    self.header = (header != USUAL_HEADER).then(|| header.into_boxed_str());
                    self.partial = None;
                    return Ok(Some(Item::Header(Header { tag, content })));
                }
                Some(Event::Text(..) | Event::EndElement(_)) => return Err(Fault::NotWellFormed),
            }
        }
    }

    fn stanza(&mut self, bytes: &mut &[u8], bounds: Bounds, parsers: &mut Parsers) -> Result<Option<Item>, Fault> {
        if self.partial.as_ref().is_none_or(|partial| partial.bytes == 0) {
            if skip_space(bytes) {
                parsers.put(self.header.as_deref(), self.partial.take());
                return Ok(None);
            }
            if let Some(item) = self.plain(bytes, bounds) {
                return Ok(Some(item));
            }
        }
        let partial = match &mut self.partial {
            Some(partial) => partial,
            none => none.insert(parsers.take(self.header.as_deref())?),
        };
        while let Some(event) = partial.event(bytes, bounds.stanza_bytes)? {
            match event {
                Event::XmlDeclaration(..) => return Err(Fault::Restricted),
                Event::StartElement(_, (namespace, name), attributes) => {
                    partial.begin(Element { name, namespace, attributes: listed(attributes), nodes: Vec::new() })?;
                }
                Event::Text(_, text) => partial.say(text)?,
                Event::EndElement(_) => match partial.end() {
                    None => {}
                    Some(item) => {
                        if item == Item::End {
                            (self.stage, self.partial) = (Stage::Ended, None);
                        }
                        return Ok(Some(item));
                    }
                },
            }
        }
        Ok(None)
    }

    fn plain(&self, bytes: &mut &[u8], bounds: Bounds) -> Option<Item> {
        let around = match self.header.as_deref() {
            None => CLIENT,
            Some(BARE_HEADER) => Namespace::NONE,
            Some(_) => return None,
        };
        let (element, length) = plain::read(bytes, bounds.stanza_bytes, &around)?;
        *bytes = &bytes[length..];
        Some(Item::Element(element))
    }

    /// About the bytes this holds on the heap; exactly 0 between the stanzas of a stream with the usual opening.
    pub fn heap_bytes(&self) -> usize {
        /// What rxml holds: its two working buffers, and some hundred bytes for the names of what is open.
        const PARSER_BYTES: usize = 2 * TOKEN_BYTES;
        let partial = self.partial.as_ref().map_or(0, |partial| {
            size_of::<Partial>()
                + PARSER_BYTES
                + partial.opening.capacity()
                + partial.open.capacity() * size_of::<Element>()
                + partial.bytes
        });
        self.header.as_ref().map_or(0, |header| header.len()) + partial
    }
}

/// Whether a text is a sequence of elements, each with its own namespace, which it declares itself, so that it may be put into any
/// stanza of any stream.
pub fn is_fragment(text: &str) -> bool {
    elements(text.as_bytes()).is_ok_and(|elements| elements.iter().all(|element| element.namespace.is_some()))
}

/// The elements of a text that stands alone.
pub(super) fn elements(text: &[u8]) -> Result<Vec<Element>, Fault> {
    let mut reader = Reader { header: Some(BARE_HEADER.into()), partial: None, stage: Stage::Open };
    let (mut rest, mut found, mut parsers) = (text, Vec::new(), Parsers::default());
    while let Some(item) = reader.next(&mut rest, Bounds { stanza_bytes: text.len() }, &mut parsers)? {
        match item {
            Item::Element(element) => found.push(element),
            Item::Header(_) | Item::End => return Err(Fault::NotWellFormed),
        }
    }
    if reader.partial.is_none() { Ok(found) } else { Err(Fault::NotWellFormed) }
}

/// Leaves out white space at the start. True: there was nothing else.
fn skip_space(bytes: &mut &[u8]) -> bool {
    *bytes = bytes.trim_ascii_start();
    bytes.is_empty()
}

fn listed(attributes: AttrMap) -> Vec<Attribute> {
    attributes.into_iter().map(|((namespace, name), value)| Attribute { name, namespace, value }).collect()
}

/// The default namespace that an opening tag declares, and the tag with nothing but its declarations.
fn declarations(opening: &[u8]) -> Result<(String, String), Fault> {
    let (mut rest, mut parser) = (opening, RawParser::new());
    let (mut content, mut tag) = (String::new(), Vec::new());
    let mut declared = Vec::new();
    loop {
        match parser.parse(&mut rest, false).map_err(|_| Fault::NotWellFormed)?.ok_or(Fault::NotWellFormed)? {
            RawEvent::ElementHeadOpen(_, (prefix, name)) => {
                tag.push(b'<');
                if let Some(prefix) = prefix {
                    tag.extend_from_slice(prefix.as_bytes());
                    tag.push(b':');
                }
                tag.extend_from_slice(name.as_bytes());
            }
            RawEvent::Attribute(_, (None, name), value) if name.as_str() == "xmlns" => {
                content.clone_from(&value);
                declared.push(("xmlns".to_owned(), value));
            }
            RawEvent::Attribute(_, (Some(prefix), name), value) if prefix.as_str() == "xmlns" => {
                declared.push((format!("xmlns:{name}"), value));
            }
            RawEvent::ElementHeadClose(_) => break,
            _ => {}
        }
    }
    declared.sort();
    declared.iter().for_each(|(name, value)| write::attribute(&mut tag, name, value));
    tag.push(b'>');
    Ok((content, String::from_utf8(tag).map_err(|_| Fault::Encoding)?))
}

/// What rxml says, in the words of RFC 6120 (4.9.3 and 11).
fn fault(error: rxml::Error) -> Fault {
    use rxml::Error::*;
    match error {
        InvalidUtf8Byte(_) | RestrictedXml("only utf-8 encoding is allowed") => Fault::Encoding,
        RestrictedXml("long name or reference") => Fault::TooLarge,
        // "<!" and neither a comment nor CDATA: a document type, or a part of one.
        RestrictedXml(_) | UndeclaredEntity | InvalidSyntax("malformed cdata or comment section start") => Fault::Restricted,
        UndeclaredNamespacePrefix(_) => Fault::Prefix,
        _ => Fault::NotWellFormed,
    }
}

#[cfg(test)]
mod tests;
