//! Text from outside: decoding and tidying.

use std::borrow::Cow;

use encoding_rs::WINDOWS_1252;

use super::notes::ReadNotes;

/// Longest title kept, in characters. Longer ones are advertising texts; models cut far earlier.
pub const MAX_TITLE_CHARS: usize = 512;

/// Bytes as text: UTF-8 where they are UTF-8, else latin-1 (its superset Windows-1252, which decodes
/// any byte). Latin-1 text that is also valid UTF-8 hardly occurs, so re-encoded MovieLens copies
/// and originals both come out right.
pub(super) fn decode<'a>(bytes: &'a [u8], notes: &mut ReadNotes) -> Cow<'a, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    notes.latin1_texts += 1;
    WINDOWS_1252.decode_without_bom_handling(bytes).0
}

/// A title as models see it: entities decoded, runs of white space and control characters one
/// space, at most [`MAX_TITLE_CHARS`].
pub(super) fn title(bytes: &[u8], notes: &mut ReadNotes) -> String {
    let decoded = decode(bytes, notes);
    let unescaped = html_escape::decode_html_entities(decoded.as_ref());
    if unescaped != decoded {
        notes.html_entities += 1;
    }
    let tidy = tidy(&unescaped);
    if tidy.contains(char::REPLACEMENT_CHARACTER) {
        notes.replacement_characters += 1;
    }
    match tidy.char_indices().nth(MAX_TITLE_CHARS) {
        None => tidy,
        Some((end, _)) => {
            notes.long_titles += 1;
            tidy[..end].trim_end().to_owned()
        }
    }
}

/// Categories joined by `|`, tidied like a title and never counted.
pub(super) fn category(bytes: &[u8], notes: &mut ReadNotes) -> String {
    let decoded = decode(bytes, notes);
    tidy(&html_escape::decode_html_entities(decoded.as_ref()))
}

/// A key or an attribute.
pub(super) fn label(bytes: &[u8], notes: &mut ReadNotes) -> String {
    decode(bytes.trim_ascii(), notes).into_owned()
}

fn tidy(text: &str) -> String {
    let mut tidy = String::with_capacity(text.len());
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty())
    {
        if !tidy.is_empty() {
            tidy.push(' ');
        }
        tidy.push_str(word);
    }
    tidy
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entities_white_space_and_control_characters_are_tidied_and_counted() {
        let mut notes = ReadNotes::default();
        assert_eq!(title(b"  Tom &amp;\tJerry\r\n &#39;92\x00 ", &mut notes), "Tom & Jerry '92");
        assert_eq!(notes, ReadNotes { html_entities: 1, ..ReadNotes::default() });
    }

    #[test]
    fn latin1_and_utf8_give_the_same_title() {
        let mut notes = ReadNotes::default();
        assert_eq!(title(b"Mis\xe9rables, Les", &mut notes), "Misérables, Les");
        assert_eq!(title("Misérables, Les".as_bytes(), &mut notes), "Misérables, Les");
        assert_eq!(notes.latin1_texts, 1);
    }

    #[test]
    fn a_title_of_thousands_of_characters_is_cut_between_characters() {
        let mut notes = ReadNotes::default();
        let cut = title("é\u{fffd}".repeat(5_000).as_bytes(), &mut notes);
        assert_eq!(cut.chars().count(), MAX_TITLE_CHARS);
        assert_eq!((notes.long_titles, notes.replacement_characters), (1, 1));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_short_title_without_control_characters(
            bytes in proptest::collection::vec(any::<u8>(), 0..2_000)
        ) {
            let title = title(&bytes, &mut ReadNotes::default());
            prop_assert!(title.chars().count() <= MAX_TITLE_CHARS);
            prop_assert!(!title.contains(char::is_control));
        }
    }
}
