//! Refusals: a stable code and one safe line. The same line travels in ttrpc status messages, in the
//! broker's error bodies and in logs, and `sealpod explain CODE` prints what it means.

mod codes;

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

pub use codes::Code;

/// Longest line, in bytes. Detail beyond it is cut.
pub const MAX_LINE: usize = 512;

const PREFIX: &str = "sealpod[";

/// One refusal. Displays as `sealpod[CODE]: detail` on one line of at most [`MAX_LINE`] bytes, with
/// control characters replaced: detail may quote hostile input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// What was refused; stable.
    pub code: Code,
    /// The thing, the check that failed and the next step, for people. Never a secret.
    pub detail: String,
}

impl Refusal {
    /// A refusal with its detail.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }

    /// Finds the first refusal line inside longer text, such as a status message that wraps it.
    pub fn parse(text: &str) -> Option<Self> {
        for (at, _) in text.match_indices(PREFIX) {
            let rest = &text[at + PREFIX.len()..];
            let Some((code, after)) = rest.split_once("]: ") else { continue };
            let Ok(code) = code.parse() else { continue };
            let detail = after.lines().next().unwrap_or_default();
            return Some(Self { code, detail: detail.trim_end().to_owned() });
        }
        None
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = format!("{PREFIX}{}]: ", self.code);
        for c in self.detail.chars() {
            // Line and paragraph separators and direction marks let a quoted string rewrite the line
            // that a person reads.
            let unsafe_to_show = c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            let c = if unsafe_to_show { '\u{fffd}' } else { c };
            if line.len() + c.len_utf8() > MAX_LINE - "…".len() {
                line.push('…');
                break;
            }
            line.push(c);
        }
        f.write_str(&line)
    }
}

impl std::error::Error for Refusal {}

/// Text without a refusal line in it.
#[derive(Debug, Error)]
#[error("no refusal of the form 'sealpod[CODE]: …' in the text")]
pub struct NotARefusal;

impl FromStr for Refusal {
    type Err = NotARefusal;

    fn from_str(text: &str) -> Result<Self, NotARefusal> {
        Self::parse(text).ok_or(NotARefusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn found_inside_longer_text() {
        let line = Refusal::new(Code::ExecDenied, "exec of 'sh' in 'web' is not granted").to_string();
        let wrapped = format!("rpc error: code = PermissionDenied desc = sealpod[NOPE]: x {line}\r\nmore");
        let found = Refusal::parse(&wrapped).unwrap();
        assert_eq!(found.code, Code::ExecDenied);
        assert_eq!(found.detail, "exec of 'sh' in 'web' is not granted");
        assert!(Refusal::parse("sealpod[EXEC_DENIED]").is_none());
        assert!(Refusal::parse("sealpod[exec_denied]: x").is_none());
    }

    #[test]
    fn every_code_explains_itself_and_round_trips() {
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL {
            assert_eq!(code.to_string().parse::<Code>().unwrap(), *code);
            assert!(seen.insert(code.name()), "{code} twice");
            assert!(!code.title().is_empty());
            assert!(code.explanation().len() > 60, "{code} says too little");
            assert!(code.name().chars().all(|c| c.is_ascii_uppercase() || c == '_'));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn one_bounded_line_whatever_the_detail(detail in any::<String>(), repeat in 1usize..60) {
            let line = Refusal::new(Code::Evidence, detail.repeat(repeat)).to_string();
            prop_assert!(line.len() <= MAX_LINE);
            prop_assert_eq!(line.lines().count(), 1);
            prop_assert!(!line.chars().any(char::is_control));
            prop_assert_eq!(Refusal::parse(&line).unwrap().code, Code::Evidence);
        }
    }
}
