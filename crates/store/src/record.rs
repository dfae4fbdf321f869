//! Several texts in one stored value: each as `<length>:<bytes>`, an absent one as `-:`. The scripts have the twin.
//!
//! It does not know what the texts mean.

/// Reads the texts of a record; `None` when it is none.
pub(crate) fn unpack(mut bytes: &[u8]) -> Option<Vec<Option<String>>> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        let colon = bytes.iter().position(|byte| *byte == b':')?;
        let (length, rest) = (&bytes[..colon], &bytes[colon + 1..]);
        if length == b"-" {
            values.push(None);
            bytes = rest;
            continue;
        }
        let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
        let (value, rest) = rest.split_at_checked(length)?;
        values.push(Some(String::from_utf8(value.to_vec()).ok()?));
        bytes = rest;
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_whatever_its_texts_hold() {
        let read = unpack("2:a:-:0:3:1:x5:\0ä\u{7f}:".as_bytes());
        let wanted = [Some("a:"), None, Some(""), Some("1:x"), Some("\0ä\u{7f}:")];
        assert_eq!(read, Some(wanted.map(|text| text.map(str::to_owned)).to_vec()));
        assert_eq!(unpack(b""), Some(vec![]));
    }

    #[test]
    fn what_is_no_record_is_told() {
        for bytes in [
            &b"5:abc"[..],
            b"abc",
            b":",
            b"x:1",
            b"1:\xff",
            b"99999999999999999999999:a",
        ] {
            assert_eq!(unpack(bytes), None, "{bytes:?}");
        }
    }
}
