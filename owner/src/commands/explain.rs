//! `sealpod explain`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use protocols::refusal::{Code, Refusal};

use crate::cli::ExplainArgs;

const WIDTH: usize = 100;

pub(crate) fn run(args: &ExplainArgs) -> Result<ExitCode> {
    let Some(text) = &args.code else {
        for code in Code::ALL {
            println!("{:22} {}", code.name(), code.title());
        }
        return Ok(ExitCode::SUCCESS);
    };
    // People paste the whole line.
    let code = match Refusal::parse(text) {
        Some(refusal) => refusal.code,
        None => text.trim().to_ascii_uppercase().parse().with_context(|| format!("code '{text}'"))?,
    };
    println!("{}: {}\n", code.name(), code.title());
    println!("{}", wrap(code.explanation()));
    Ok(ExitCode::SUCCESS)
}

fn wrap(text: &str) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > WIDTH {
            lines.push('\n');
            column = 0;
        } else if column > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += length;
    }
    lines
}
