//! The policy that a guest is launched with. AMD 55766 table 2.

use std::fmt;

/// Version of the firmware's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct FirmwareApi {
    /// Major.
    pub major: u8,
    /// Minor.
    pub minor: u8,
}

impl fmt::Display for FirmwareApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A guest policy: bits, and the lowest firmware that may run the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Policy(pub u32);

impl Policy {
    /// The host may not debug the guest.
    pub const NODBG: u32 = 1 << 0;
    /// The guest's key is not shared with other guests.
    pub const NOKS: u32 = 1 << 1;
    /// Registers are encrypted: SEV-ES.
    pub const ES: u32 = 1 << 2;
    /// The guest may not be sent to another platform.
    pub const NOSEND: u32 = 1 << 3;
    /// … nor to one outside its owner's domain.
    pub const DOMAIN: u32 = 1 << 4;
    /// … nor to one without SEV.
    pub const SEV: u32 = 1 << 5;
    /// The bits with a meaning, with their names.
    pub const NAMES: [(u32, &'static str); 6] = [
        (Self::NODBG, "NODBG"),
        (Self::NOKS, "NOKS"),
        (Self::ES, "ES"),
        (Self::NOSEND, "NOSEND"),
        (Self::DOMAIN, "DOMAIN"),
        (Self::SEV, "SEV"),
    ];

    /// From bits and the lowest firmware.
    pub const fn new(bits: u32, minimum: FirmwareApi) -> Self {
        Self((bits & 0xffff) | ((minimum.major as u32) << 16) | ((minimum.minor as u32) << 24))
    }

    /// Whether all of these bits are set.
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }

    /// Registers are encrypted.
    pub const fn es(self) -> bool {
        self.has(Self::ES)
    }

    /// Bits 15:6 must be zero.
    pub const fn reserved_is_zero(self) -> bool {
        self.0 & 0xffc0 == 0
    }

    /// The lowest firmware that may run the guest.
    pub const fn minimum(self) -> FirmwareApi {
        FirmwareApi { major: (self.0 >> 16) as u8, minor: (self.0 >> 24) as u8 }
    }

    /// The names of these bits, for people.
    pub fn names(bits: u32) -> String {
        let names: Vec<_> =
            Self::NAMES.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| name).collect();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_minimum_have_their_places() {
        let policy = Policy::new(Policy::NODBG | Policy::ES, FirmwareApi { major: 1, minor: 51 });
        assert_eq!(policy.0.to_le_bytes(), [5, 0, 1, 51]);
        assert_eq!(policy.minimum().to_string(), "1.51");
        assert!(policy.es() && policy.has(Policy::NODBG) && !policy.has(Policy::NODBG | Policy::NOKS));
        assert!(policy.reserved_is_zero() && !Policy(1 << 6).reserved_is_zero());
        assert_eq!(Policy::names(policy.0 & 0xffff), "NODBG, ES");
    }

    #[test]
    fn a_minor_version_counts_below_a_major_one() {
        assert!(FirmwareApi { major: 0, minor: 99 } < FirmwareApi { major: 1, minor: 0 });
    }
}
