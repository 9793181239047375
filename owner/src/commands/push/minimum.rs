//! `--minimum-tcb`: numbers, or the dated table of what answers published attacks. Either way the policy that is
//! signed holds numbers: a later table changes nothing that was pushed.

use std::str::FromStr;

use anyhow::{Result, bail};
use protocols::owner::{MinimumTcb, SnpPolicy, SnpProduct};
use tee_evidence::snp::{Line, Product};
use verifier::snp::minima::{self, Minima};

/// What is asked of the TCB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TcbMinimum {
    /// These versions, of processors of this product or line, and no others.
    Numbers(SnpProduct, MinimumTcb),
    /// The table's, as of its newest entry.
    Current,
    /// The table's, with bulletins up to this date.
    Until(String),
}

impl FromStr for TcbMinimum {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "current" {
            return Ok(Self::Current);
        }
        let date = text.split('-').map(str::len).eq([4, 2, 2])
            && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        if date {
            return Ok(Self::Until(text.to_owned()));
        }
        // The numbers of one product say nothing about another's.
        let (name, numbers) = text.split_once('=').unwrap_or_default();
        let product = Line::ALL.into_iter().find(|line| line.name() == name).map(reference_values::product);
        let numbers: Result<Vec<u8>, _> = numbers.split(',').map(str::parse).collect();
        match (product, numbers.as_deref()) {
            (Some(product), Ok(&[bootloader, tee, snp, microcode])) => {
                Ok(Self::Numbers(product, MinimumTcb { bootloader, tee, snp, microcode, fmc: None }))
            }
            (Some(product), Ok(&[bootloader, tee, snp, microcode, fmc])) => {
                Ok(Self::Numbers(product, MinimumTcb { bootloader, tee, snp, microcode, fmc: Some(fmc) }))
            }
            _ => Err(
                "a product with four or five numbers from 0 to 255 is needed, such as milan=3,0,8,115, or \
                      'current', or the date of a set of known minima, such as 2025-02-03"
                    .into(),
            ),
        }
    }
}

impl TcbMinimum {
    /// The policy that asks for it, and is the strictest otherwise.
    pub(crate) fn policy(&self) -> Result<SnpPolicy> {
        match self {
            Self::Numbers(product, minimum) => {
                let mut policy = SnpPolicy::new(NEVER);
                policy.products.insert(*product, *minimum);
                Ok(policy)
            }
            Self::Current => known(&minima::table()?, None),
            Self::Until(date) => known(&minima::table()?, Some(date)),
        }
    }
}

/// Every product that is allowed has its own minima, so this one is for none.
const NEVER: MinimumTcb = MinimumTcb { bootloader: 255, tee: 255, snp: 255, microcode: 255, fmc: None };

fn known(table: &Minima, until: Option<&str>) -> Result<SnpPolicy> {
    let mut policy = SnpPolicy::new(NEVER);
    for line in Line::ALL {
        let Some(minimum) = table.for_line(line, until) else { continue };
        let tcb = minimum.tcb;
        let tcb = MinimumTcb {
            bootloader: tcb.bootloader,
            tee: tcb.tee,
            snp: tcb.snp,
            microcode: tcb.microcode,
            fmc: tcb.fmc,
        };
        policy.products.insert(reference_values::product(line), tcb);
        policy.require_alias_check |= minimum.alias_check;
    }
    if policy.products.is_empty() {
        bail!("--minimum-tcb: no minima were known by that date; the first are of 2023-11-14");
    }
    // Nothing is known to be enough for these.
    let unknown = |product: &Product| {
        let first: SnpProduct = reference_values::product(Line::of(*product, None));
        (!policy.products.contains_key(&first)).then_some(first)
    };
    policy.denied_products = Product::ALL.iter().filter_map(unknown).collect();
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_dates_and_the_newest_are_told_apart() {
        let numbers = |fmc| MinimumTcb { bootloader: 3, tee: 0, snp: 8, microcode: 115, fmc };
        for (text, expected) in [
            ("milan=3,0,8,115", TcbMinimum::Numbers(SnpProduct::Milan, numbers(None))),
            ("turin=3,0,8,115,1", TcbMinimum::Numbers(SnpProduct::Turin, numbers(Some(1)))),
            ("current", TcbMinimum::Current),
            ("2025-02-03", TcbMinimum::Until("2025-02-03".into())),
        ] {
            assert_eq!(text.parse(), Ok(expected));
        }
        for text in [
            "",
            "3,0,8,115",
            "rome=3,0,8,115",
            "milan=3,0,8",
            "milan=3,0,8,256",
            "milan=",
            "Current",
            "2025-2-3",
            "20250203",
            "2025-ab-cd",
        ] {
            assert!(text.parse::<TcbMinimum>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_newest_set_has_minima_for_every_product() {
        let policy = TcbMinimum::Current.policy().unwrap();
        assert_eq!(policy.products[&SnpProduct::Milan].microcode, 0xdb);
        assert_eq!(policy.products[&SnpProduct::MilanX].microcode, 0x44);
        assert!(policy.products.contains_key(&SnpProduct::Turin));
        assert!(policy.require_alias_check && policy.denied_products.is_empty());
    }

    #[test]
    fn products_that_an_older_set_says_nothing_about_are_denied() {
        let policy = TcbMinimum::Until("2023-12-31".into()).policy().unwrap();
        assert_eq!(policy.products[&SnpProduct::Milan].microcode, 0xd1);
        assert_eq!(policy.denied_products, [SnpProduct::Genoa, SnpProduct::Turin]);
        assert!(!policy.require_alias_check);
        assert!(TcbMinimum::Until("2020-01-01".into()).policy().is_err());
    }
}
