//! What the TCB version of a platform has to be so that published attacks are answered: a dated file in the
//! source, with the bulletin that says so for every number. Policies are explicit: nothing here is applied
//! unless its owner wrote the numbers into the policy, for which the command line reads them from here.

use serde::Deserialize;
use tee_evidence::snp::{Line, Tcb};

const DATA: &str = include_str!("../../data/tcb-minima.toml");

/// Why the file can't be read. A test holds it to being readable.
#[derive(Debug, thiserror::Error)]
#[error("the table of TCB minima can't be read")]
pub struct MinimaError(#[from] toml::de::Error);

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Minima {
    /// When it was last held against AMD's bulletins, as `YYYY-MM-DD`.
    pub recorded: String,
    /// One entry for each attack and line of processors.
    #[serde(rename = "minimum")]
    pub entries: Vec<Entry>,
}

/// What answers one attack on one line of processors. A number that is `None` is not asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Whose processors.
    pub line: Line,
    /// First mutable code, Turin only.
    pub fmc: Option<u8>,
    /// Bootloader of the secure processor.
    pub bootloader: Option<u8>,
    /// Operating system of the secure processor.
    pub tee: Option<u8>,
    /// SNP firmware.
    pub snp: Option<u8>,
    /// Microcode.
    pub microcode: Option<u8>,
    /// The platform must have checked its memory for aliases.
    #[serde(default)]
    pub alias_check: bool,
    /// What the attack is called.
    pub name: String,
    /// Its number.
    pub cve: String,
    /// AMD's bulletin.
    pub bulletin: String,
    /// The bulletin's date, as `YYYY-MM-DD`.
    pub date: String,
    /// Where the numbers were read.
    pub source: String,
}

/// What answers every attack that is known for a line of processors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minimum {
    /// Lowest version of each component.
    pub tcb: Tcb,
    /// The platform must have checked its memory for aliases.
    pub alias_check: bool,
    /// Date of the newest entry that counts.
    pub date: String,
}

/// Reads the file.
///
/// # Errors
/// Never, as long as its test passes.
pub fn table() -> Result<Minima, MinimaError> {
    Ok(toml::from_str(DATA)?)
}

/// The strongest of all entries for a line of processors; `None` if there is none.
///
/// # Errors
/// As [`table`].
pub fn current(line: Line) -> Result<Option<Minimum>, MinimaError> {
    Ok(table()?.for_line(line, None))
}

impl Minima {
    /// The strongest of the entries for a line, with bulletins up to a date (`YYYY-MM-DD`) if one is given.
    pub fn for_line(&self, line: Line, until: Option<&str>) -> Option<Minimum> {
        self.entries
            .iter()
            .filter(|entry| entry.line == line && until.is_none_or(|until| entry.date.as_str() <= until))
            .fold(None, |strongest, entry| Some(entry.raise(strongest)))
    }
}

impl Entry {
    fn raise(&self, other: Option<Minimum>) -> Minimum {
        let Minimum { mut tcb, alias_check, date } =
            other.unwrap_or_else(|| Minimum { tcb: Tcb::default(), alias_check: false, date: String::new() });
        for (into, from) in [
            (&mut tcb.bootloader, self.bootloader),
            (&mut tcb.tee, self.tee),
            (&mut tcb.snp, self.snp),
            (&mut tcb.microcode, self.microcode),
        ] {
            *into = (*into).max(from.unwrap_or_default());
        }
        tcb.fmc = tcb.fmc.max(self.fmc);
        Minimum { tcb, alias_check: alias_check || self.alias_check, date: date.max(self.date.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_dated_and_sourced() {
        let table = table().unwrap();
        let date = |text: &str| {
            text.len() == 10 && text.split('-').map(str::len).eq([4, 2, 2]) && text <= table.recorded.as_str()
        };
        assert!(date(&table.recorded));
        for entry in &table.entries {
            assert!(date(&entry.date), "{entry:?}");
            assert!(entry.cve.starts_with("CVE-20"), "{entry:?}");
            assert!(entry.bulletin.starts_with("AMD-SB-"), "{entry:?}");
            assert!(entry.source.contains(&entry.bulletin), "{entry:?}");
            assert!(entry.fmc.is_none() || entry.line == Line::Turin || entry.line == Line::TurinDense);
            let numbers = [entry.fmc, entry.bootloader, entry.tee, entry.snp, entry.microcode];
            assert!(numbers.iter().any(Option::is_some), "{entry:?}");
        }
    }

    #[test]
    fn the_strongest_of_each_component_counts() {
        let tcb = |line| current(line).unwrap().unwrap().tcb;
        assert_eq!((tcb(Line::Milan).snp, tcb(Line::Milan).microcode), (0x17, 0xdb));
        assert_eq!(tcb(Line::MilanX).microcode, 0x44);
        assert_eq!(tcb(Line::Genoa), Tcb { snp: 0x1b, microcode: 0x56, ..Tcb::default() });
        assert!(current(Line::Milan).unwrap().unwrap().alias_check);
        assert_eq!(current(Line::TurinDense).unwrap(), None);
    }

    #[test]
    fn a_set_can_be_named_by_date() {
        let table = table().unwrap();
        let at = |line, date| table.for_line(line, Some(date));
        assert_eq!(at(Line::Milan, "2023-11-13"), None);
        assert_eq!(at(Line::Milan, "2023-11-14").unwrap().tcb.microcode, 0xd1);
        let genoa = at(Line::Genoa, "2025-09-30").unwrap();
        assert_eq!((genoa.tcb.snp, genoa.date.as_str()), (0x17, "2025-02-03"));
    }

    /// The three attacks that started this file are answered where they apply.
    #[test]
    fn the_known_attacks_are_answered() {
        let table = table().unwrap();
        for (cve, line) in [
            ("CVE-2023-20592", Line::Milan),
            ("CVE-2024-21944", Line::Milan),
            ("CVE-2024-21944", Line::Genoa),
            ("CVE-2024-56161", Line::Milan),
            ("CVE-2024-56161", Line::Genoa),
        ] {
            assert!(table.entries.iter().any(|entry| entry.cve == cve && entry.line == line), "{cve}");
        }
    }
}
