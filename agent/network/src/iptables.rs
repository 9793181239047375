//! The packet filter, through its own programs. Whoever runs them must be the one who reaps: a status
//! that someone else collects is lost.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::NetworkError;

/// Rules of one request; the programs read them all into memory.
pub const MAX_RULES: usize = 1024 * 1024;

/// Where the programs are in a guest.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Seconds to wait for another program that changes the rules.
const WAIT: &str = "10";

/// Most of a complaint that is passed on.
const MAX_COMPLAINT: usize = 256;

/// One of the programs.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    path: PathBuf,
    arguments: &'static [&'static str],
}

impl Program {
    /// Prints all rules.
    pub fn save(v6: bool) -> Result<Self, NetworkError> {
        Self::find(if v6 { "ip6tables-save" } else { "iptables-save" }, &[], &DIRECTORIES.map(Path::new))
    }

    /// Replaces the rules of the tables that its input names.
    pub fn restore(v6: bool) -> Result<Self, NetworkError> {
        let name = if v6 { "ip6tables-restore" } else { "iptables-restore" };
        Self::find(name, &["--wait", WAIT], &DIRECTORIES.map(Path::new))
    }

    fn find(
        name: &'static str,
        arguments: &'static [&'static str],
        directories: &[&Path],
    ) -> Result<Self, NetworkError> {
        let path = directories.iter().map(|directory| directory.join(name)).find(|path| path.exists());
        Ok(Self { name, path: path.ok_or(NetworkError::NoProgram(name))?, arguments })
    }

    /// To be run by the one who reaps.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(self.arguments).env_clear().current_dir("/");
        command
    }

    /// What it printed, if it succeeded.
    pub fn outcome(&self, code: i32, printed: Vec<u8>, complaint: &[u8]) -> Result<Vec<u8>, NetworkError> {
        if code == 0 {
            return Ok(printed);
        }
        let complaint = String::from_utf8_lossy(complaint);
        let line = complaint.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let complaint = line.chars().filter(|c| !c.is_control()).take(MAX_COMPLAINT).collect();
        Err(NetworkError::Rules { program: self.name, code, complaint })
    }

    /// It couldn't be run.
    pub fn failed(&self, source: std::io::Error) -> NetworkError {
        NetworkError::Program { program: self.name, source }
    }
}

/// Refuses rules that are too long to be any.
pub fn check(rules: &[u8]) -> Result<(), NetworkError> {
    if rules.len() > MAX_RULES {
        return Err(NetworkError::Malformed(format!("more than {MAX_RULES} bytes of rules")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_without_the_program_says_so() {
        let empty = tempfile::tempdir().unwrap();
        let error = Program::find("iptables-save", &[], &[empty.path()]).unwrap_err().to_string();
        assert_eq!(error, "the guest has no program 'iptables-save'; use a guest image with iptables");
    }

    #[test]
    fn the_first_line_of_a_complaint_is_passed_on() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("iptables-restore"), "").unwrap();
        let program = Program::find("iptables-restore", &[], &[dir.path()]).unwrap();
        assert_eq!(program.outcome(0, b"rules".to_vec(), b"").unwrap(), b"rules");
        let error = program.outcome(2, Vec::new(), b"\nline 3 failed\x1b\nmore").unwrap_err().to_string();
        assert_eq!(error, "'iptables-restore' ended with status 2: line 3 failed");
        assert!(check(&vec![0; MAX_RULES + 1]).is_err());
    }
}
