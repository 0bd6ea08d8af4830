//! Says what is wrong with a text that is not YAML.
//!
//! serde_yaml reads the files; its errors speak of tokens and contexts. What it refuses is read again
//! by a second parser, whose errors name the fault. No message quotes a value: it may be a secret.

use granit_parser::{ErrorKind, Parser, ScanError};

use super::fault::{Fault, Position};
use crate::config::code::Code;

/// The fault in `text`, which serde_yaml refused at `at` for the reason `said`.
pub(super) fn explain(text: &str, at: Position, said: &str) -> Fault {
    let found = Parser::new_from_str(text).find_map(Result::err);
    let reader = Reader { lines: text.lines().collect(), at, said };
    let fault = reader.without_second_opinion();
    let fault = fault.or_else(|| found.and_then(|error| reader.named(&error)));
    let fault = fault.or_else(|| reader.last_resort());
    fault.unwrap_or_else(|| reader.fault(at, Code::YamlSyntax, format!("not valid YAML: {said}")))
}

struct Reader<'a> {
    lines: Vec<&'a str>,
    /// Where serde_yaml stopped.
    at: Position,
    said: &'a str,
}

impl Reader<'_> {
    fn fault(&self, position: Position, code: Code, message: impl Into<String>) -> Fault {
        Fault::new(position, code, message)
    }

    fn line(&self, number: usize) -> &str {
        number.checked_sub(1).and_then(|index| self.lines.get(index)).copied().unwrap_or_default()
    }

    fn char_at(&self, at: Position) -> Option<char> {
        self.line(at.line).chars().nth(at.column.checked_sub(1)?)
    }

    /// What serde_yaml's error and the place say by themselves.
    fn without_second_opinion(&self) -> Option<Fault> {
        let at = self.at;
        let says = |words: &str| self.said.contains(words);
        if says("scanning a directive") {
            let start = Position { line: at.line, column: 1 };
            let message = "`%` at the start of a line begins a directive";
            return Some(self.fault(start, Code::YamlReserved, message));
        }
        if says("incompatible YAML document") {
            let message = "the file says that it is in another version of YAML than 1.1 or 1.2";
            let fault = self.fault(at, Code::YamlSyntax, message);
            return Some(fault.remedied("remove the line, or write `%YAML 1.2`"));
        }
        if says("duplicate %") {
            let message = "this directive stands above already";
            return Some(self.fault(at, Code::YamlSyntax, message).remedied("remove this line"));
        }
        if says("undefined tag handle") || says("scanning a tag") || says("parsing a tag") {
            let tag = self.before(at, '!')?;
            return Some(self.fault(tag, Code::YamlTag, "YAML tags (!name) are not supported"));
        }
        if says("scanning an anchor") {
            let message = "`&` begins the name of an anchor";
            return Some(self.fault(self.before(at, '&')?, Code::YamlAnchor, message));
        }
        let reserved = |message: &str| Some(self.fault(at, Code::YamlReserved, message));
        match self.char_at(at)? {
            '\t' if says("cannot start any token") => Some(self.tab(at)),
            ',' if says("expected node content") => reserved("no value can begin with `,`"),
            '-' if says("block sequence entries") => {
                reserved("no value can begin with `-` and a space")
            }
            '-' if says("parsing a flow node") => {
                let fault = reserved("no entry inside brackets can begin with `-` and a space")?;
                Some(fault.remedied("separate the entries with commas, or remove the brackets"))
            }
            '?' if says("mapping keys are not allowed") => {
                reserved("no value can begin with `?` and a space")
            }
            ':' if says("expected node content") || says("expected key") => {
                let message = "there is no key before the colon";
                Some(self.fault(at, Code::YamlEmptyKey, message))
            }
            _ => None,
        }
    }

    /// What is left when neither parser names the fault.
    fn last_resort(&self) -> Option<Fault> {
        if self.char_at(self.at).is_none() && self.said.contains("parsing a flow") {
            return self.never_closed();
        }
        self.said.contains("did not find expected key").then(|| self.indentation())
    }

    /// The last bracket that is still open at the end of the text. Brackets in quotes count too.
    fn never_closed(&self) -> Option<Fault> {
        let mut open = Vec::new();
        for (index, line) in self.lines.iter().enumerate() {
            for (column, c) in line.chars().enumerate() {
                match c {
                    '[' | '{' => open.push((Position { line: index + 1, column: column + 1 }, c)),
                    ']' | '}' => drop(open.pop()),
                    _ => {}
                }
            }
        }
        let (position, bracket) = open.pop()?;
        let message = format!("`{bracket}` is opened here and never closed");
        Some(self.fault(position, Code::YamlUnclosedBracket, message))
    }

    /// Where `sign` is last on the line, up to `at`.
    fn before(&self, at: Position, sign: char) -> Option<Position> {
        let line: Vec<char> = self.line(at.line).chars().take(at.column).collect();
        let index = line.iter().rposition(|c| *c == sign)?;
        Some(Position { column: index + 1, ..at })
    }

    fn named(&self, error: &ScanError) -> Option<Fault> {
        use ErrorKind as Kind;
        let marker = error.marker();
        let marked = Position { line: marker.line(), column: marker.col() + 1 };
        let fault = match error.kind() {
            Kind::TabNotAllowed
            | Kind::TabInBlockIndentation
            | Kind::TabInIndentation
            | Kind::TabInPlainScalar
            | Kind::TabAtBlockScalarStart => self.tab(marked),
            Kind::UnclosedFlowCollection { .. }
            | Kind::UnexpectedEofFlowSequence
            | Kind::UnexpectedEofFlowMapping
            | Kind::UnexpectedEofImplicitFlowMapping
            | Kind::ExpectedFlowMappingSeparator
            | Kind::ExpectedFlowSequenceSeparator
            | Kind::InvalidColonPlacement => self.in_brackets()?,
            Kind::MismatchedFlowCollectionEnd { open, close } => {
                let line = self.at.line;
                let message =
                    format!("`{open}` is opened here, but line {line} closes it with `{close}`");
                self.fault(marked, Code::YamlUnclosedBracket, message)
            }
            Kind::MisplacedFlowCollectionEnd => {
                let bracket = self.char_at(marked)?;
                let message = format!("`{bracket}` closes nothing");
                self.fault(marked, Code::YamlUnexpectedBracket, message)
            }
            Kind::UnclosedQuotedScalar => {
                let message = "the quote that is opened here is never closed";
                self.fault(marked, Code::YamlUnclosedQuote, message)
            }
            Kind::InvalidTrailingSingleQuotedScalar | Kind::InvalidTrailingDoubleQuotedScalar => {
                self.fault(self.at, Code::YamlAfterQuote, "text follows the closing quote")
            }
            Kind::UnknownQuotedScalarEscape
            | Kind::InvalidQuotedScalarHexEscape
            | Kind::InvalidUnicodeEscape
            | Kind::UnpairedLowSurrogate
            | Kind::MissingLowSurrogate => {
                let message = "the backslash begins an escape that YAML does not know";
                self.fault(self.at, Code::YamlEscape, message)
            }
            Kind::MissingAnchorOrAliasName | Kind::UnknownAnchor => match self.char_at(marked)? {
                '&' => self.fault(marked, Code::YamlAnchor, "`&` begins the name of an anchor"),
                _ => {
                    let message = "`*` begins an alias, and no anchor above has this name";
                    self.fault(marked, Code::YamlAlias, message)
                }
            },
            Kind::UnexpectedCharacter { character } => {
                let message = format!("no value can begin with `{}`", character.escape_default());
                self.fault(marked, Code::YamlReserved, message)
            }
            Kind::InvalidBlockScalarHeader => {
                let sign = self.char_at(marked)?;
                let message = format!("`{sign}` begins a text that starts on the next line");
                self.fault(marked, Code::YamlReserved, message)
            }
            Kind::SimpleKeyExpected => self.no_key(marked.line),
            Kind::MappingValueNotAllowed => self.second_colon(marked.line),
            Kind::ExpectedBlockMappingKey
            | Kind::ExpectedBlockSequenceEntry
            | Kind::InvalidIndentation
            | Kind::InvalidFlowScalarIndent
            | Kind::InvalidQuotedScalarIndent
            | Kind::InvalidBlockScalarIndent => self.indentation(),
            _ => return None,
        };
        Some(fault)
    }

    /// The line that begins with a tab, or the tab before a value.
    fn tab(&self, marked: Position) -> Fault {
        let candidates = [self.at.line, marked.line, marked.line + 1];
        let indented = |line: &usize| self.indent_of(*line).contains('\t');
        let line = candidates.into_iter().find(indented).unwrap_or(self.at.line);
        let column = self.line(line).chars().position(|c| c == '\t').map_or(1, |index| index + 1);
        let message = "a tab indents this line, and YAML takes only spaces";
        self.fault(Position { line, column }, Code::YamlTab, message)
    }

    fn indent_of(&self, line: usize) -> &str {
        let line = self.line(line);
        &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
    }

    /// Inside `{}` or `[]`, which serde_yaml's error says the opening of.
    fn in_brackets(&self) -> Option<Fault> {
        let (_, opening) = self.said.rsplit_once("while parsing a flow ")?;
        let (_, place) = opening.split_once(" at line ")?;
        let (line, column) = place.split_once(" column ")?;
        let opened = Position { line: line.parse().ok()?, column: column.parse().ok()? };
        let outside = self.at.line > opened.line
            && self.indent_of(self.at.line).len() <= self.indent_of(opened.line).len();
        let bracket = self.char_at(opened)?;
        if outside || !self.is_closed(opened) {
            let message = format!("`{bracket}` is opened here and never closed");
            return Some(self.fault(opened, Code::YamlUnclosedBracket, message));
        }
        let line: String = self.line(self.at.line).chars().take(self.at.column).collect();
        if line.trim_end_matches(['{', '}']).ends_with('$') {
            let position = Position { column: self.at.column - 1, ..self.at };
            let message = "the braces of a variable are read as brackets here";
            return Some(self.fault(position, Code::YamlVariable, message));
        }
        let close = if bracket == '[' { ']' } else { '}' };
        let message = format!("expected `,` or `{close}` before this");
        Some(self.fault(self.at, Code::YamlMissingComma, message))
    }

    /// Whether the bracket at `opened` is closed anywhere below. Brackets in quotes count too.
    fn is_closed(&self, opened: Position) -> bool {
        let mut open = 0_usize;
        for (index, line) in self.lines.iter().enumerate().skip(opened.line - 1) {
            let before = if index + 1 == opened.line { opened.column - 1 } else { 0 };
            for c in line.chars().skip(before) {
                match c {
                    '[' | '{' => open += 1,
                    ']' | '}' => open = open.saturating_sub(1),
                    _ => continue,
                }
                if open == 0 {
                    return true;
                }
            }
        }
        false
    }

    /// A line that should have a key, and has none.
    fn no_key(&self, number: usize) -> Fault {
        let line = self.line(number).trim_start();
        let at = Position { line: number, column: self.indent_of(number).chars().count() + 1 };
        if let Some(colon) = colon_without_space(line) {
            return self.squeezed(number, colon);
        }
        match line.chars().next() {
            Some('-') => {
                self.fault(at, Code::YamlSpaceAfterDash, "there is no space after the dash")
            }
            Some('*') => {
                let message = "`*` begins an alias, and no anchor above has this name";
                self.fault(at, Code::YamlAlias, message)
            }
            _ => self.fault(at, Code::YamlMissingColon, "this line has no key with a colon"),
        }
    }

    /// A colon where no key can stand.
    fn second_colon(&self, number: usize) -> Fault {
        let line = self.line(number);
        let before: String = line.chars().take(self.at.column.saturating_sub(1)).collect();
        if let Some(first) = before.find(": ") {
            let column = before[..first].chars().count() + 3;
            let message = "the value has a colon, which would make it a key";
            return self.fault(Position { line: number, column }, Code::YamlColonInValue, message);
        }
        let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        let above = (1..number).rev().find(|line| !blank(self.line(*line)));
        let Some(above) = above else { return self.indentation() };
        let text = self.line(above).trim_start();
        if let Some(colon) = colon_without_space(text) {
            return self.squeezed(above, colon);
        }
        if text.contains(": ") || text.ends_with(':') {
            return self.indentation();
        }
        self.no_key(above)
    }

    /// `colon` counts the characters before the colon, without the indentation.
    fn squeezed(&self, line: usize, colon: usize) -> Fault {
        let column = self.indent_of(line).chars().count() + colon + 1;
        let message = "there is no space after the colon";
        self.fault(Position { line, column }, Code::YamlSpaceAfterColon, message)
    }

    fn indentation(&self) -> Fault {
        let line = self.at.line;
        let column = self.indent_of(line).chars().count() + 1;
        let (mine, list) = (column - 1, self.line(line).trim_start().starts_with("- "));
        let message = match list {
            true => format!("a list entry indented by {mine} spaces matches no list above"),
            false => format!("a line indented by {mine} spaces matches no line above"),
        };
        self.fault(Position { line, column }, Code::YamlIndentation, message)
    }
}

/// Where the colon of `key:value` is, if the line is that.
fn colon_without_space(line: &str) -> Option<usize> {
    let line = line.strip_prefix("- ").map_or(line, str::trim_start);
    let (key, value) = line.split_once(':')?;
    let is_name = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
    let squeezed = value.starts_with(|c: char| !c.is_whitespace()) && !value.starts_with("//");
    (is_name && squeezed).then(|| key.chars().count())
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;

    fn fault(text: &str) -> (usize, usize, Code) {
        let fault = parse(text, 0).err().unwrap_or_else(|| panic!("{text:?} is YAML"));
        (fault.position.line, fault.position.column, fault.code)
    }

    #[test]
    fn every_mistake_is_named_where_it_is() {
        for (text, place) in [
            ("a:\n\tb: 1\n", (2, 1, Code::YamlTab)),
            ("a:\n  b: 1\n\tc: 2\n", (3, 1, Code::YamlTab)),
            ("a: [1, 2\nb: 3\n", (1, 4, Code::YamlUnclosedBracket)),
            ("a: {b: 1\nc: {d: 2}\n", (1, 4, Code::YamlUnclosedBracket)),
            ("a:\n  b: [1,\n  c: 2\n", (2, 6, Code::YamlUnclosedBracket)),
            ("a: {b: [1, 2}\n", (1, 8, Code::YamlUnclosedBracket)),
            ("a: [1, 2]]\n", (1, 10, Code::YamlUnexpectedBracket)),
            ("a: \"x\nb: 1\n", (1, 4, Code::YamlUnclosedQuote)),
            ("a: 'don't'\n", (1, 9, Code::YamlAfterQuote)),
            ("a: \"C:\\dir\"\n", (1, 7, Code::YamlEscape)),
            ("a: *\n", (1, 4, Code::YamlAlias)),
            ("a: *.example.com\n", (1, 4, Code::YamlAlias)),
            ("a: [*, b]\n", (1, 5, Code::YamlAlias)),
            ("a: & b\n", (1, 4, Code::YamlAnchor)),
            ("a: @x\n", (1, 4, Code::YamlReserved)),
            ("a: %x\n", (1, 4, Code::YamlReserved)),
            ("%x: 1\n", (1, 1, Code::YamlReserved)),
            ("a: > x\n", (1, 4, Code::YamlReserved)),
            ("a:1\nb: 2\n", (1, 2, Code::YamlSpaceAfterColon)),
            ("a: 1\nb:2\nc: 3\n", (2, 2, Code::YamlSpaceAfterColon)),
            ("a:\n  b: 1\n  c:2\n", (3, 4, Code::YamlSpaceAfterColon)),
            ("a:\n  b\n  c: 2\n", (2, 3, Code::YamlMissingColon)),
            ("a: 1\nb\n", (2, 1, Code::YamlMissingColon)),
            ("a: b: c\n", (1, 4, Code::YamlColonInValue)),
            ("a: {b: 1 c: 2}\n", (1, 11, Code::YamlMissingComma)),
            ("a:\n- b\n-c\n", (3, 1, Code::YamlSpaceAfterDash)),
            ("a:\n  b: 1\n c: 2\n", (3, 2, Code::YamlIndentation)),
            ("a:\n  b: 1\n   c: 2\n", (3, 4, Code::YamlIndentation)),
            ("a: {url: ${URL}}\n", (1, 10, Code::YamlVariable)),
            ("%YAML 3.0\n---\na: 1\n", (1, 1, Code::YamlSyntax)),
            ("%YAML 1.2\n%YAML 1.2\n---\na: 1\n", (2, 1, Code::YamlSyntax)),
            ("a: !x!y 1\n", (1, 4, Code::YamlTag)),
            ("a: !<x 1\n", (1, 4, Code::YamlTag)),
            ("a: !<>\n", (1, 4, Code::YamlTag)),
            ("&: 1\n", (1, 1, Code::YamlAnchor)),
            ("\ta: 1\n", (1, 1, Code::YamlTab)),
            ("a: ? b\n", (1, 4, Code::YamlReserved)),
            ("a: [\n- b\n]\n", (2, 1, Code::YamlReserved)),
            ("a: {b: 1, : c}\n", (1, 11, Code::YamlEmptyKey)),
            (": a\n", (1, 1, Code::YamlEmptyKey)),
            ("a: {\n", (1, 4, Code::YamlUnclosedBracket)),
            ("a: {b: [\n", (1, 8, Code::YamlUnclosedBracket)),
            ("a: b # c\n  d: e\n", (2, 3, Code::YamlIndentation)),
        ] {
            assert_eq!(fault(text), place, "{text:?}");
        }
    }
}
