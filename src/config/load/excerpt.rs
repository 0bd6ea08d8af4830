//! The line of a file that a diagnostic shows, with what may be a secret replaced.
//!
//! This works on the text, because a file that cannot be parsed is shown too. It rather hides too
//! much than too little.

use super::fault::Position;

/// Keys whose values are hidden, with everything below them.
const SECRET: [&str; 6] = ["keys", "secret", "password", "token", "headers", "authorization"];
/// Longer lines are not shown, in characters.
const MAX_LINE: usize = 400;
/// Brackets that are open over more lines than these are not noticed.
const MAX_BRACKETS: usize = 200;
const HIDDEN: char = '•';

pub(super) struct Excerpt {
    pub(super) line: String,
    /// The column after the last character of the value or key at the position.
    pub(super) end: usize,
}

/// The line at `position`; `None` if there is none, or if it is too long to be read.
pub(super) fn at(lines: &[&str], position: Position) -> Option<Excerpt> {
    let index = position.line.checked_sub(1)?;
    let line = lines.get(index)?;
    let characters: Vec<char> =
        line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if characters.is_empty() || characters.len() > MAX_LINE {
        return None;
    }
    let start = position.column.saturating_sub(1).min(characters.len());
    let end = (start + extent(&characters[start..])).max(start) + 1;
    let mut shown = characters;
    if is_below_secret(lines, index) {
        hide(&mut shown, Begins::WithKey);
    }
    let mut from = 0;
    while let Some(value) = secret_value(&shown, from) {
        let length = extent_of_value(&shown[value..]);
        let mut hidden = shown[value..value + length].to_vec();
        hide(&mut hidden, Begins::WithValue);
        shown.splice(value..value + length, hidden);
        from = value + length.max(1);
    }
    hide_passwords(&mut shown);
    Some(Excerpt { line: shown.into_iter().collect(), end })
}

/// How many characters the quoted text, bracket or plain text at the start has.
fn extent(text: &[char]) -> usize {
    match text.first() {
        None => 0,
        Some(quote @ ('"' | '\'')) => {
            text.iter().skip(1).position(|c| c == quote).map_or(text.len(), |end| end + 2)
        }
        Some('[' | '{' | ']' | '}' | ',') => 1,
        Some(_) => {
            let mut braces = 0_usize;
            let ends = |index: &usize| {
                let (c, next) = (text[*index], text.get(index + 1));
                match c {
                    '{' if *index > 0 && text[index - 1] == '$' => braces += 1,
                    '}' if braces > 0 => braces -= 1,
                    ',' | '}' | ']' | '{' | '[' => return true,
                    ':' if braces == 0 => return next.is_none_or(|c| c.is_whitespace()),
                    ' ' => return next == Some(&'#'),
                    _ => {}
                }
                false
            };
            let end = (0..text.len()).find(ends).unwrap_or(text.len());
            end - text[..end].iter().rev().take_while(|c| c.is_whitespace()).count()
        }
    }
}

/// As [`extent`], but to the end of brackets, or of the line if they are not closed on it.
fn extent_of_value(text: &[char]) -> usize {
    if !matches!(text.first(), Some('[' | '{')) {
        // What follows a comma may belong to it: only brackets end a value.
        return text.iter().position(|c| matches!(c, '}' | ']')).unwrap_or(text.len());
    }
    let mut open = 0_usize;
    let closes = |c: &char| {
        match c {
            '[' | '{' => open += 1,
            ']' | '}' => open -= 1,
            _ => {}
        }
        open == 0
    };
    text.iter().position(closes).map_or(text.len(), |end| end + 1)
}

/// Whether the line lies below a key with secrets, by its indentation or inside brackets.
fn is_below_secret(lines: &[&str], index: usize) -> bool {
    let indent = |line: &str| line.bytes().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let mut limit = indent(lines[index]);
    for line in lines[..index].iter().rev() {
        let indent = indent(line);
        // A list may be indented as much as its key.
        let is_above = indent < limit || (indent == limit && line.trim_end().ends_with(':'));
        let text = &line[indent..];
        if !is_above || text.is_empty() || text.starts_with('#') {
            continue;
        }
        if names_secret(line) {
            return true;
        }
        limit = indent.min(limit);
        if limit == 0 && indent == 0 {
            break;
        }
    }
    is_within_secret(&lines[index.saturating_sub(MAX_BRACKETS)..index])
}

/// Whether brackets with a secret are still open after these lines.
fn is_within_secret(lines: &[&str]) -> bool {
    let (mut open, mut secret) = (0_i64, false);
    for line in lines.iter().rev() {
        for byte in line.bytes() {
            open += i64::from(matches!(byte, b'[' | b'{')) - i64::from(matches!(byte, b']' | b'}'));
        }
        secret |= names_secret(line);
        if open > 0 && secret {
            return true;
        }
    }
    false
}

fn names_secret(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    if !SECRET.iter().any(|name| line.contains(name)) {
        return false;
    }
    let characters: Vec<char> = line.chars().collect();
    secret_value(&characters, 0).is_some()
}

/// Where the value of the next secret key begins, from `from` on.
fn secret_value(text: &[char], from: usize) -> Option<usize> {
    (from..text.len()).find_map(|start| {
        let at_start = start == 0 || !is_name(text[start - 1]);
        let length = text[start..].iter().take_while(|c| is_name(**c)).count();
        let name: String = text[start..start + length].iter().collect();
        if !at_start || !SECRET.contains(&name.to_ascii_lowercase().as_str()) {
            return None;
        }
        let blank = |from: usize| text[from..].iter().take_while(|c| c.is_whitespace()).count();
        let quote = usize::from(matches!(text.get(start + length), Some('"' | '\'')));
        let colon = start + length + quote + blank(start + length + quote);
        (text.get(colon) == Some(&':')).then(|| colon + 1 + blank(colon + 1))
    })
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

#[derive(PartialEq)]
enum Begins {
    WithKey,
    WithValue,
}

/// Hides every value, but not keys, brackets and `${VARIABLES}`.
fn hide(text: &mut [char], begins: Begins) {
    let (mut at, mut may_be_key) = (0, begins == Begins::WithKey);
    while at < text.len() {
        match text[at] {
            '{' | '[' | ',' => {
                may_be_key = true;
                at += 1;
            }
            ':' => {
                may_be_key = false;
                at += 1;
            }
            c if c.is_whitespace() || matches!(c, '}' | ']') => at += 1,
            '-' if may_be_key && text.get(at + 1) == Some(&' ') => at += 1,
            _ => {
                let length = extent(&text[at..]).max(1);
                let token = &text[at..at + length];
                let is_key = may_be_key && text.get(at + length) == Some(&':');
                let is_variable = token.starts_with(&['$', '{'])
                    && token.last() == Some(&'}')
                    && token[2..length - 1].iter().all(|c| is_name(*c));
                if !is_key && !is_variable {
                    text[at..at + length].fill(HIDDEN);
                }
                may_be_key = false;
                at += length;
            }
        }
    }
}

/// Hides the user and the password in URLs, and `password=…` in connection strings.
fn hide_passwords(text: &mut [char]) {
    let find = |text: &[char], from: usize, what: &str| {
        let what: Vec<char> = what.chars().collect();
        let found = text.get(from..)?.windows(what.len()).position(|window| window == what)?;
        Some(from + found + what.len())
    };
    let mut from = 0;
    while let Some(start) = find(text, from, "://") {
        let ends = |c: &char| c.is_whitespace() || matches!(c, '"' | '\'');
        let end = text[start..].iter().position(ends).map_or(text.len(), |end| start + end);
        if let Some(sign) = text[start..end].iter().rposition(|c| *c == '@') {
            text[start..start + sign].fill(HIDDEN);
        }
        from = start;
    }
    from = 0;
    while let Some(start) = find(text, from, "password=") {
        let ends = |c: &char| c.is_whitespace() || matches!(c, '&' | '"' | '\'' | '}' | ',');
        let end = text[start..].iter().position(ends).map_or(text.len(), |end| start + end);
        text[start..end].fill(HIDDEN);
        from = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, line: usize, column: usize) -> (String, usize) {
        let lines: Vec<&str> = text.lines().collect();
        let excerpt = at(&lines, Position { line, column }).expect("a line");
        (excerpt.line, excerpt.end)
    }

    #[test]
    fn what_is_wrong_is_underlined_to_its_end() {
        for (text, column, end) in [
            ("a: {request: soon, b: 1}", 14, 18),
            ("a: 'b c' # d", 4, 9),
            ("reties: {}", 1, 7),
            ("a: b c # d", 4, 7),
            ("a: {b: ${C:-d}, e: 1}", 8, 15),
            ("a: [1", 4, 5),
        ] {
            assert_eq!(shown(text, 1, column), (text.to_owned(), end));
        }
    }

    #[test]
    fn no_secret_is_shown_wherever_it_stands() {
        for (text, line) in [
            ("a: {api_key: {header: 'X Y', keys: {acme: hunter2, b: 'hunter2'}}}", 1),
            ("keys:\n  acme: hunter2", 2),
            ("keys:\n  acme:hunter2", 2),
            ("keys:\n  acme: {key: hunter2, scopes: [a]}", 2),
            ("keys:\n  acme:\n    key: hunter2\n    scopes: [a]", 3),
            ("a: {keys: {b: x,\nc: hunter2}}", 2),
            ("jwt: {secret: hunter2, algorithms: [HS256]}", 1),
            ("secret:hunter2", 1),
            ("\"secret\" : x\nsecret: ab: hunter2", 2),
            ("secret: |\n  hunter2", 2),
            ("secret: a, hunter2", 1),
            ("url: postgres://me:hunter2@db/x", 1),
            ("url: 'postgres://me:hun@hunter2@db/x'", 1),
            ("url: 'host=db password=hunter2'", 1),
            ("keys: {a: ${KEY:-hunter2}}", 1),
        ] {
            let (shown, _) = shown(text, line, 1);
            assert!(!shown.contains("hunter2"), "{text:?}: {shown}");
        }
    }

    #[test]
    fn what_is_no_secret_stays_to_be_read() {
        let text = "keys:\n  acme: ${ACME_KEY}";
        assert_eq!(shown(text, 2, 3).0, "  acme: ${ACME_KEY}");
        let text = "auth:\n  a: {keys: {b: x}}\nroutes:\n  c: {upstream: d}";
        assert_eq!(shown(text, 4, 3).0, "  c: {upstream: d}");
        assert_eq!(shown("key: consumer", 1, 1).0, "key: consumer");
    }
}
