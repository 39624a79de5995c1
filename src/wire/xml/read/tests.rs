//! Tests of the reader: what a stream is made of, and what it may not be made of.

use super::*;
use proptest::prelude::*;

const BOUNDS: Bounds = Bounds { stanza_bytes: 20_000 };
const OPENING: &str = "<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
     xmlns:stream='http://etherx.jabber.org/streams'>";

/// All items, and what ended them.
fn read(pieces: &[&[u8]]) -> (Vec<Item>, Option<Fault>) {
    let (mut reader, mut items, mut parsers) = (Reader::default(), Vec::new(), Parsers::default());
    for piece in pieces {
        let mut rest = *piece;
        loop {
            match reader.next(&mut rest, BOUNDS, &mut parsers) {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(fault) => return (items, Some(fault)),
            }
        }
        assert!(rest.is_empty());
    }
    (items, None)
}

fn bytewise(stream: &[u8]) -> (Vec<Item>, Option<Fault>) {
    read(&stream.chunks(1).collect::<Vec<_>>())
}

/// The fault of a stream that says this after its opening, read whole and byte by byte.
fn fault_of(text: impl AsRef<[u8]>) -> Option<Fault> {
    let stream = [OPENING.as_bytes(), text.as_ref()].concat();
    let whole = read(&[&stream]);
    assert_eq!(whole, bytewise(&stream));
    whole.1
}

#[test]
fn a_stream_is_its_header_its_stanzas_and_its_end() {
    let stream = format!(
        " \n{OPENING}\n <message to='a'><body>h\u{e9}&amp;<![CDATA[<]]></body></message> <p:x xmlns:p='y'/>\n</stream:stream>"
    );
    let (items, fault) = bytewise(stream.as_bytes());
    assert_eq!((read(&[stream.as_bytes()]), None), ((items.clone(), None), fault));
    let [Item::Header(header), Item::Element(message), Item::Element(other), Item::End] = &items[..] else { panic!("{items:?}") };
    assert!(header.tag.is("stream", "http://etherx.jabber.org/streams") && header.content == "jabber:client");
    assert_eq!(header.tag.attribute("to"), Some("localhost"));
    assert_eq!(message.child("body", "jabber:client").unwrap().text(), "h\u{e9}&<");
    assert!(other.is("x", "y"));
}

#[test]
fn declarations_of_the_header_hold_for_stanzas_that_come_later() {
    let opening = "<s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns='jabber:client' xmlns:q='urn:q&amp;'>";
    for stream in [format!("{opening}<q:a b='1'/><c/></s:stream>"), format!("{opening} ")] {
        let (items, fault) = bytewise(stream.as_bytes());
        assert_eq!(fault, None);
        if let [_, Item::Element(a), Item::Element(c), Item::End] = &items[..] {
            assert!(a.is("a", "urn:q&") && c.is("c", "jabber:client"));
        }
    }
    let (items, _) = read(&[opening.as_bytes(), b"<q:a/>", b"</stream:stream>"]);
    assert_eq!(items.len(), 2, "the closing tag is not the one of the opening");
}

#[test]
fn an_empty_stream_ends_at_once() {
    let (items, fault) = bytewise(b"<stream:stream xmlns:stream='s'/> and more <");
    assert!(matches!(&items[..], [Item::Header(header), Item::End] if header.content.is_empty()) && fault.is_none());
}

#[test]
fn each_kind_of_forbidden_xml_has_its_own_fault() {
    let faults = [
        ("<!-- c -->", Fault::Restricted),
        ("<m><!-- c --></m>", Fault::Restricted),
        ("<?php 1 ?>", Fault::Restricted),
        ("<m><?xml version='1.0'?></m>", Fault::Restricted),
        ("<!DOCTYPE x>", Fault::Restricted),
        ("<m><!ENTITY x 'y'></m>", Fault::Restricted),
        ("<m>&lol;</m>", Fault::Restricted),
        ("<m a='&lol9;'/>", Fault::Restricted),
        ("<q:m/>", Fault::Prefix),
        ("<m q:a='1'/>", Fault::Prefix),
        ("<m></n>", Fault::NotWellFormed),
        ("<m a='1' a='2'/>", Fault::NotWellFormed),
        ("<m a=1/>", Fault::NotWellFormed),
        ("<m>\0</m>", Fault::NotWellFormed),
        ("<m>&#0;</m>", Fault::NotWellFormed),
        ("<m>]]></m>", Fault::NotWellFormed),
        ("</m>", Fault::NotWellFormed),
        ("text<m/>", Fault::Stray),
        ("<m/>text</stream:stream>", Fault::Stray),
    ];
    for (text, fault) in faults {
        assert_eq!(fault_of(text), Some(fault), "{text}");
    }
}

#[test]
fn what_may_not_come_before_the_opening_is_refused() {
    let faults = [
        ("<!DOCTYPE lolz [<!ENTITY lol 'lol'>]><stream/>", Fault::Restricted),
        ("<?xml version='1.0' encoding='latin-1'?><stream/>", Fault::Encoding),
        ("<?xml version='1.1'?><stream/>", Fault::Restricted),
        ("GET / HTTP/1.1\r\n\r\n<", Fault::NotWellFormed),
        ("\0", Fault::NotWellFormed),
    ];
    for (text, fault) in faults {
        assert_eq!(read(&[text.as_bytes()]).1, Some(fault), "{text}");
        assert_eq!(bytewise(text.as_bytes()).1, Some(fault), "{text}");
    }
    let long = format!("<stream:stream xmlns:stream='s' to='{}'>", "x".repeat(HEADER_BYTES));
    assert_eq!(read(&[long.as_bytes()]).1, Some(Fault::TooLarge));
}

#[test]
fn what_is_not_utf_8_is_refused_wherever_it_is_cut() {
    let bad: [&[u8]; 6] = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"];
    for bad in bad {
        for (before, after) in [("<m>a", "b</m>"), ("<m a='", "'/>"), ("<m><![CDATA[", "]]></m>")] {
            let stream = [OPENING.as_bytes(), before.as_bytes(), bad, after.as_bytes()].concat();
            for cut in OPENING.len()..stream.len() {
                let (first, second) = stream.split_at(cut);
                assert_eq!(read(&[first, second]).1, Some(Fault::Encoding), "{before}{bad:?}{after} cut at {cut}");
            }
        }
    }
}

#[test]
fn depth_number_and_size_are_bounded() {
    let deep = |levels: usize| "<a>".repeat(levels) + &"</a>".repeat(levels);
    assert_eq!(fault_of(deep(DEPTH)), None);
    assert_eq!(fault_of(deep(DEPTH + 1)), Some(Fault::TooDeep));
    assert_eq!(fault_of("<a>".repeat(10_000)), Some(Fault::TooDeep));
    let wide = |number: usize| format!("<a {}/>", (0..number).map(|n| format!("a{n}='' ")).collect::<String>());
    assert_eq!(fault_of(wide(ATTRIBUTES)), None);
    assert_eq!(fault_of(wide(ATTRIBUTES + 1)), Some(Fault::TooMany));
    assert_eq!(fault_of(format!("<a>{}</a>", "<b/>".repeat(ELEMENTS))), Some(Fault::TooMany));
    assert_eq!(fault_of(format!("<a b='{}'/>", "x".repeat(1 << 20))), Some(Fault::TooLarge));
    assert_eq!(fault_of(format!("<{}/>", "x".repeat(1 << 20))), Some(Fault::TooLarge));
    let text = |bytes: usize| format!("<a>{}</a>", "x".repeat(bytes - 7));
    assert_eq!(fault_of(text(BOUNDS.stanza_bytes).repeat(3)), None);
    assert_eq!(fault_of(text(BOUNDS.stanza_bytes + 1)), Some(Fault::TooLarge));
    assert_eq!(fault_of("x".repeat(1 << 20)), Some(Fault::Stray));
}

#[test]
fn a_reader_between_stanzas_keeps_nothing() {
    let (mut reader, mut parsers) = (Reader::default(), Parsers::default());
    assert!(size_of::<Reader>() <= 32);
    for piece in [OPENING, "<m/>", "  \n", "<m>x</m><m/> "] {
        let mut rest = piece.as_bytes();
        while reader.next(&mut rest, BOUNDS, &mut parsers).unwrap().is_some() {}
        assert_eq!(reader.heap_bytes(), 0, "after {piece}");
    }
    assert!(reader.next(&mut &b"<m"[..], BOUNDS, &mut parsers).unwrap().is_none());
    assert!(reader.heap_bytes() > 0);
}

#[test]
fn streams_that_share_a_parser_know_nothing_of_each_other() {
    let mut parsers = Parsers::default();
    let mut say = |reader: &mut Reader, text: &str| {
        let mut rest = text.as_bytes();
        std::iter::from_fn(|| reader.next(&mut rest, BOUNDS, &mut parsers).transpose()).collect::<Result<Vec<_>, _>>()
    };
    let [mut one, mut other, mut third] = [Reader::default(), Reader::default(), Reader::default()];
    for reader in [&mut one, &mut other, &mut third] {
        assert_eq!(say(reader, OPENING).unwrap().len(), 1);
    }
    assert_eq!(say(&mut one, "<m xmlns='y' xmlns:p='x'><p:a/>").unwrap().len(), 0, "one is half said");
    let stanzas = say(&mut other, "<m xmlns:p='x'><p:a/></m><m/>").unwrap();
    assert_eq!(stanzas[1], say(&mut third, "<m/>").unwrap()[0]);
    assert_eq!(say(&mut one, "</m>").unwrap().len(), 1);
    assert_eq!(stanzas[1], say(&mut one, "<m/>").unwrap()[0]);
    assert_eq!(say(&mut third, "<p:m/>"), Err(Fault::Prefix));
    assert_eq!(stanzas[1], say(&mut other, "<m/>").unwrap()[0], "who was at fault leaves no parser behind");
}

#[test]
fn fragments_are_elements_that_declare_their_own_namespaces() {
    for good in ["", "<a xmlns='x'/>", "<a xmlns='x'><b>t</b></a> <p:c xmlns:p='y' xml:lang='de'/>"] {
        assert!(is_fragment(good), "{good}");
    }
    let bad = [
        "<a/>",
        "<p:a/>",
        "t",
        "<a xmlns='x'>",
        "<a xmlns='x'/></x><x>",
        "<a xmlns='x'/></x>",
        "<!-- -->",
        "<a xmlns='x'/><b",
        "\0",
    ];
    for bad in bad {
        assert!(!is_fragment(bad), "{bad}");
    }
}

proptest! {
    #[test]
    fn pieces_of_any_length_give_the_same(cuts in prop::collection::vec(1usize..90, 0..40), bad in 0usize..400) {
        let mut stream = format!("{OPENING}<message to='\u{e9}@b'><body>\u{1f600}&#x41;&lt;\r\n</body><x xmlns='y'><![CDATA[]]]]>\
            </x></message>\r\n<iq type='get' id=\"1'\"><q:q xmlns:q='z' q:w='\t'/></iq> <presence/></stream:stream>").into_bytes();
        if let Some(byte) = stream.get_mut(bad) {
            *byte = 0xc3;
        }
        let mut pieces = Vec::new();
        let mut rest = &stream[..];
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        prop_assert_eq!(read(&pieces), read(&[&stream]));
    }
}

/// Pieces of which stanzas are made, plain and not.
const PIECES: &[&str] = &[
    "<m>",
    "</m>",
    "<m/>",
    "<a b='c'>",
    "</a>",
    "<a b='c' a=\"d'd\"/>",
    "<a xmlns='x'>",
    "<a xmlns='x' xmlns='y'/>",
    "<a xmlns=''/>",
    "<a b='1' b='2'/>",
    "<p:a xmlns:p='x'/>",
    "<p:a/>",
    "<m >",
    "</m >",
    "<m / >",
    "< m/>",
    "<m\n\tb='1'\n/>",
    "<a b='x\ny'/>",
    "<a b = '1'/>",
    "<a b='1'c='2'/>",
    "text",
    " ",
    "\n",
    "\r\n",
    "&amp;",
    "&#65;",
    "&x;",
    "]]>",
    "]]",
    ">",
    "<![CDATA[x]]>",
    "<!-- x -->",
    "<?x?>",
    "\u{e9}",
    "\u{fffd}",
    "\u{fffe}",
    "\u{85}",
    "\u{7f}",
    "\u{1}",
    "\u{1f600}",
    "<a xml:lang='de'/>",
    "<xmlns/>",
    "<a xmlns:b='c'/>",
    "<1/>",
    "<a-b_9/>",
    "<a.b/>",
    "<a b=c/>",
    "<a b='<'/>",
    "<a b='>'/>",
    "<a b='\u{e9}'/>",
    "<",
    "</",
    "'",
    "<\u{e9}/>",
    "<xml/>",
    "<XMLx/>",
    "<a xmlns='http://www.w3.org/2000/xmlns/'/>",
    "<a xmlns='http://www.w3.org/XML/1998/namespace'/>",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Byte by byte nothing is whole, so everything goes through the parser.
    #[test]
    fn the_short_way_reads_what_the_parser_reads(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 1..12)) {
        let text = pieces.concat();
        for text in [text.clone(), format!("<m>{text}</m>"), format!("<m><a b='c'>{text}</a></m><m/>")] {
            let stream = [OPENING.as_bytes(), text.as_bytes()].concat();
            prop_assert_eq!(read(&[&stream]), bytewise(&stream), "{}", text);
        }
    }
}

#[test]
fn a_usual_presence_is_plain() {
    let text = "<presence id='a' to='b@c/d'><show>away</show><status>\u{e9}t\u{e9}</status>\n<priority>5</priority>\
                <c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' ver='v='/></presence>";
    let (element, length) = plain::read(text.as_bytes(), 10_000, &CLIENT).expect("it is");
    assert_eq!(length, text.len());
    assert_eq!(element.child("c", "http://jabber.org/protocol/caps").and_then(|c| c.attribute("ver")), Some("v="));
    assert_eq!(element.child("status", "jabber:client").map(Element::text).as_deref(), Some("\u{e9}t\u{e9}"));
    assert_eq!(plain::read(text.as_bytes(), text.len() - 1, &CLIENT), None, "longer than allowed");
}
