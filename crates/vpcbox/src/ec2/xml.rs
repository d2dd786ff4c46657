//! Replies as XML, in the shape that the strictest of the real clients reads: lists of `<item>`, lower-case booleans, times with
//! milliseconds and `Z`.

use jiff::Timestamp;
use quick_xml::{
    Writer,
    events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event},
};
use std::{fmt::Display, io};

/// Writes one reply. A failed write, which a `Vec` never reports, ends up in [`Xml::into_bytes`] as an empty body.
pub struct Xml {
    writer: Writer<Vec<u8>>,
    outcome: io::Result<()>,
}

impl std::fmt::Debug for Xml {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Xml").field("written", &self.writer.get_ref().len()).finish_non_exhaustive()
    }
}

impl Xml {
    /// A reply with nothing but the declaration.
    pub fn new() -> Self {
        let mut xml = Self { writer: Writer::new(Vec::new()), outcome: Ok(()) };
        xml.event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
        xml
    }

    fn event(&mut self, event: Event<'_>) {
        if self.outcome.is_ok() {
            self.outcome = self.writer.write_event(event);
        }
    }

    /// An element with the namespace of the EC2 API: the root of a result.
    pub fn root(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        let start =
            BytesStart::new(name).with_attributes([("xmlns", "http://ec2.amazonaws.com/doc/2016-11-15/")]);
        self.event(Event::Start(start));
        content(self);
        self.event(Event::End(BytesEnd::new(name)));
    }

    /// An element with elements in it.
    pub fn node(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        self.event(Event::Start(BytesStart::new(name)));
        content(self);
        self.event(Event::End(BytesEnd::new(name)));
    }

    /// An element with text in it; `Display` of numbers, booleans, ids and addresses is what EC2 writes.
    pub fn leaf(&mut self, name: &str, value: impl Display) {
        self.node(name, |xml| xml.text(value));
    }

    /// Text, for items that are nothing else.
    pub fn text(&mut self, value: impl Display) {
        let text: String = value.to_string().chars().filter(|c| is_xml_char(*c)).collect();
        self.event(Event::Text(BytesText::new(&text)));
    }

    /// A point in time.
    pub fn time(&mut self, name: &str, time: Timestamp) {
        self.leaf(name, time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"));
    }

    /// A list: `<name><item>..</item>..</name>`.
    pub fn set<T>(&mut self, name: &str, items: impl IntoIterator<Item = T>, each: impl Fn(&mut Self, T)) {
        self.node(name, |xml| {
            for item in items {
                xml.node("item", |xml| each(xml, item));
            }
        });
    }

    /// `tagSet`.
    pub fn tags<'t>(&mut self, tags: impl Iterator<Item = (&'t str, &'t str)>) {
        self.set("tagSet", tags, |xml, (key, value)| {
            xml.leaf("key", key);
            xml.leaf("value", value);
        });
    }

    /// The body.
    pub fn into_bytes(self) -> Vec<u8> {
        match self.outcome {
            Ok(()) => self.writer.into_inner(),
            Err(_) => Vec::new(),
        }
    }
}

impl Default for Xml {
    fn default() -> Self {
        Self::new()
    }
}

/// Control characters have no form in XML 1.0, not even escaped: one in a description would make the whole reply unreadable.
fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}
