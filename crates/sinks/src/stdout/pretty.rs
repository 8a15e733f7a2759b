//! JSON with line breaks, for human eyes. Works on the text: numbers keep every digit.

/// Appends `json`, a compact JSON text, with two blanks of indentation per level.
pub(super) fn indent(json: &[u8], out: &mut Vec<u8>) {
    let mut depth = 0;
    let mut bytes = json.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                out.push(b'"');
                let mut escaped = false;
                for byte in bytes.by_ref() {
                    out.push(byte);
                    match byte {
                        b'"' if !escaped => break,
                        b'\\' => escaped = !escaped,
                        _ => escaped = false,
                    }
                }
            }
            b'{' | b'[' => {
                out.push(byte);
                if let Some(end @ (b'}' | b']')) = bytes.peek().copied() {
                    out.push(end);
                    bytes.next();
                } else {
                    depth += 1;
                    new_line(depth, out);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                new_line(depth, out);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                new_line(depth, out);
            }
            b':' => out.extend_from_slice(b": "),
            _ => out.push(byte),
        }
    }
}

fn new_line(depth: usize, out: &mut Vec<u8>) {
    out.push(b'\n');
    out.resize(out.len() + 2 * depth, b' ');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_the_library_but_with_every_digit() {
        let cases = ["{}", "[]", r#"{"a":1,"b":[1,{"c":"x,{}:\\\"y\\"}],"d":{},"e":[[]]}"#, r#""text""#];
        for case in cases {
            let mut out = Vec::new();
            indent(case.as_bytes(), &mut out);
            let value: serde_json::Value = serde_json::from_str(case).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string_pretty(&value).unwrap());
        }
        let mut out = Vec::new();
        indent(b"[12345678901234567890.123456789012345678901234567890]", &mut out);
        assert_eq!(out, b"[\n  12345678901234567890.123456789012345678901234567890\n]");
    }
}
