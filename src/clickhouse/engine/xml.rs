//! Writes XML for ClickHouse's configuration. Texts are escaped, and names are checked: what a setting or an id holds
//! stays within its element.

use std::io;

use quick_xml::Writer;
use quick_xml::events::{BytesStart, BytesText, Event};

/// Spaces by which an element is set in.
const INDENT: usize = 2;

/// A document under way, or an element of it.
pub(super) struct Xml(Writer<Vec<u8>>);

impl Xml {
    /// A document whose root element has this name.
    ///
    /// # Errors
    /// `InvalidInput`, when something is not a name.
    pub(super) fn document(root: &str, content: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<String> {
        let mut xml = Self(Writer::new_with_indent(Vec::new(), b' ', INDENT));
        xml.element(root, content)?;
        String::from_utf8(xml.0.into_inner()).map_err(io::Error::other)
    }

    /// An element of elements.
    pub(super) fn element(&mut self, name: &str, content: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        let start = BytesStart::new(checked(name)?);
        self.0.write_event(Event::Start(start.borrow()))?;
        content(self)?;
        self.0.write_event(Event::End(start.to_end()))
    }

    /// An element of text.
    pub(super) fn text(&mut self, name: &str, text: &str) -> io::Result<()> {
        self.0.create_element(checked(name)?).write_text_content(BytesText::new(text))?;
        Ok(())
    }

    /// An element of nothing.
    pub(super) fn empty(&mut self, name: &str) -> io::Result<()> {
        self.0.create_element(checked(name)?).write_empty()?;
        Ok(())
    }

    /// A remark for people.
    pub(super) fn comment(&mut self, text: &'static str) -> io::Result<()> {
        self.0.write_event(Event::Comment(BytesText::from_escaped(text)))
    }
}

/// The writer takes any text for a name.
fn checked(name: &str) -> io::Result<&str> {
    let is_first = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    let is_other = |byte: &u8| is_first(byte) || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    match name.as_bytes() {
        [first, others @ ..] if is_first(first) && others.iter().all(is_other) => Ok(name),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not a name in XML"))),
    }
}

/// All elements of a document, by their paths, with their texts.
#[cfg(test)]
pub(super) fn elements(xml: &str) -> Vec<(String, String)> {
    let mut reader = quick_xml::Reader::from_str(xml);
    let (mut path, mut open, mut found): (Vec<String>, Vec<usize>, Vec<(String, String)>) = Default::default();
    loop {
        match reader.read_event().unwrap() {
            Event::Start(start) => {
                path.push(start.name().as_ref().to_owned());
                open.push(found.len());
                found.push((path.join("/"), String::new()));
            }
            Event::Empty(start) => found.push((format!("{}/{}", path.join("/"), start.name().as_ref()), String::new())),
            Event::End(_) => {
                path.pop();
                let text = &mut found[open.pop().unwrap()].1;
                if text.trim().is_empty() {
                    text.clear(); // The white space around its elements.
                }
            }
            Event::Text(text) if !open.is_empty() => found[*open.last().unwrap()].1.push_str(&text),
            Event::GeneralRef(entity) => {
                let entity = quick_xml::escape::unescape(&format!("&{};", &*entity)).unwrap().into_owned();
                found[*open.last().unwrap()].1.push_str(&entity);
            }
            Event::Eof => return found,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stay_within_their_elements() {
        for text in ["plain", "a < b & c > d", "</a><b>1</b>", "<!-- -->", "]]>", "\"'", "&lt;", "用户"] {
            let xml = Xml::document("root", |xml| xml.text("a", text)).unwrap();
            assert_eq!(
                elements(&xml),
                [("root".to_owned(), String::new()), ("root/a".to_owned(), text.to_owned())],
                "{xml}"
            );
        }
    }

    #[test]
    fn names_are_names() {
        for name in ["a", "analyst_a-2Eb", "_", "A.b-c_1"] {
            assert!(Xml::document(name, |xml| xml.empty(name)).is_ok(), "{name}");
        }
        for name in ["", "1a", "-a", "a b", "a>", "a/", "a><b", "a=\"1\"", "ä", "a\n"] {
            let error = Xml::document("root", |xml| xml.text(name, "text")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
            assert!(Xml::document("root", |xml| xml.element(name, |_| Ok(()))).is_err(), "{name:?}");
            assert!(Xml::document("root", |xml| xml.empty(name)).is_err(), "{name:?}");
        }
    }
}
