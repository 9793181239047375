//! Functions that call themselves. Rego forbids them, but the engine finds recursion only among rules
//! without arguments; a function that calls itself would take the agent's stack.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{Expr, Module, Rule, RuleHead};

/// The name of a function that can come to call itself, if there is one. Errs on the side of finding one:
/// what looks like a call of a function of that name counts as one.
pub(crate) fn find(module: &Module) -> Option<String> {
    let mut functions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for rule in &module.policy {
        if let Rule::Spec { head: RuleHead::Func { refr, .. }, span, .. } = rule.as_ref() {
            functions.entry(name(refr)).or_default().push(span.text());
        }
    }
    let calls: BTreeMap<&str, BTreeSet<&str>> = functions
        .iter()
        .map(|(name, texts)| {
            let called = texts.iter().flat_map(|text| called(text));
            (*name, called.filter_map(|callee| functions.get_key_value(callee)).map(|(k, _)| *k).collect())
        })
        .collect();
    // Heads hold the function's own name, so each text begins with a call of itself: `called` drops it.
    calls.keys().find(|start| reaches(&calls, start)).map(|name| (*name).to_owned())
}

fn reaches(calls: &BTreeMap<&str, BTreeSet<&str>>, start: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut next: Vec<&str> = calls[start].iter().copied().collect();
    while let Some(function) = next.pop() {
        if function == start {
            return true;
        }
        if seen.insert(function) {
            next.extend(calls[function].iter().copied());
        }
    }
    false
}

/// The last part of a function's name.
fn name(refr: &Expr) -> &str {
    let text = refr.span().text();
    text.rsplit('.').next().unwrap_or(text)
}

/// Names that are called after the head, in any of the forms that Rego has; all names where `with` could
/// make one function stand for another.
fn called(text: &str) -> Vec<&str> {
    let words = words(text);
    let with = words.iter().any(|(word, _)| *word == "with");
    let calls = words.into_iter().skip(1).filter(|(_, call)| with || *call);
    calls.map(|(word, _)| word).collect()
}

/// Identifiers and strings outside comments, and whether an opening parenthesis follows.
fn words(text: &str) -> Vec<(&str, bool)> {
    let bytes = text.as_bytes();
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let start = at;
        match byte {
            b'#' => at += text[at..].find('\n').unwrap_or(text.len() - at),
            b'"' | b'`' => {
                at += 1;
                while bytes.get(at).is_some_and(|b| b != byte) {
                    at += if *byte == b'"' && bytes[at] == b'\\' { 2 } else { 1 };
                }
                at = (at + 1).min(text.len());
                words.push((text.get(start + 1..at - 1).unwrap_or_default(), is_call(&text[at..])));
            }
            b if b.is_ascii_alphabetic() || *b == b'_' => {
                while bytes.get(at).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_') {
                    at += 1;
                }
                words.push((&text[start..at], is_call(&text[at..])));
            }
            _ => at += 1,
        }
        while !text.is_char_boundary(at) {
            at += 1;
        }
    }
    words
}

fn is_call(rest: &str) -> bool {
    rest.trim_start_matches(|c: char| c.is_whitespace() || c == ']').starts_with('(')
}
