//! The table as people read it: `docs/agent-policy.md` is compared with this word by word.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{Condition, ROWS, Rule};

const BEGIN: &str = "<!-- made from agent/src/policy/table.rs; refresh with: SEALPOD_BLESS=1 cargo test -p sealpod-agent policy::page -->\n";
const END: &str = "<!-- end of what is made -->\n";

fn cell(rule: Rule) -> String {
    match rule {
        Rule::Allowed => "allowed".to_owned(),
        Rule::AllowedIf(condition) => format!("allowed if *{}*", name(condition)),
        Rule::Replaced(by) => format!("replaced: {by}"),
        Rule::Denied(code, reason) => format!("denied, `{code}`: {reason}"),
    }
}

fn name(condition: Condition) -> String {
    let mut words = String::new();
    for c in format!("{condition:?}").chars() {
        if c.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(c.to_lowercase());
    }
    words
}

fn made() -> String {
    let mut text = String::from("| RPC | before the spec is open | when it is |\n|---|---|---|\n");
    let mut conditions: Vec<Condition> = Vec::new();
    for row in ROWS {
        let open = if row.open == row.before { "the same".to_owned() } else { cell(row.open) };
        let _ = writeln!(text, "| {} | {} | {open} |", row.rpc, cell(row.before));
        for rule in [row.before, row.open] {
            if let Rule::AllowedIf(condition) = rule
                && !conditions.contains(&condition)
            {
                conditions.push(condition);
            }
        }
    }
    text.push_str("\n| condition | what has to hold | refused with |\n|---|---|---|\n");
    for condition in conditions {
        let (code, meaning) = condition.meaning();
        let code = code.map_or_else(|| "nothing".to_owned(), |code| format!("`{code}`"));
        let _ = writeln!(text, "| *{}* | {meaning} | {code} |", name(condition));
    }
    text
}

#[test]
fn the_page_says_what_the_table_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agent-policy.md");
    let page = fs::read_to_string(&file).unwrap();
    let (head, rest) = page.split_once(BEGIN).expect("the page has the mark where the table begins");
    let (table, tail) = rest.split_once(END).expect("the page has the mark where the table ends");
    if std::env::var_os("SEALPOD_BLESS").is_some() {
        fs::write(&file, [head, BEGIN, &made(), END, tail].concat()).unwrap();
        return;
    }
    assert_eq!(
        table,
        made(),
        "docs/agent-policy.md is stale; SEALPOD_BLESS=1 cargo test -p sealpod-agent policy::page writes it"
    );
}
