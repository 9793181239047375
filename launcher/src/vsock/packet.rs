//! The virtio-vsock packet header (virtio 1.2, section 5.10.6): 44 bytes, little-endian.

/// Bytes in a header.
pub(super) const HEADER: usize = 44;
/// The host's context id.
pub(super) const HOST_CID: u64 = 2;
/// The only socket type that we carry.
const STREAM: u16 = 1;

/// `VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE`: the sender will receive no more.
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_SEND`: the sender will send no more.
pub(super) const SHUTDOWN_SEND: u32 = 2;

/// `VIRTIO_VSOCK_OP_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Request,
    Response,
    Reset,
    Shutdown,
    Data,
    CreditUpdate,
    CreditRequest,
}

const OPS: [Op; 7] =
    [Op::Request, Op::Response, Op::Reset, Op::Shutdown, Op::Data, Op::CreditUpdate, Op::CreditRequest];

/// A header, in terms of host and guest instead of source and destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) host_port: u32,
    pub(super) guest_port: u32,
    pub(super) length: u32,
    pub(super) op: Op,
    pub(super) flags: u32,
    pub(super) buf_alloc: u32,
    pub(super) fwd_cnt: u32,
}

/// Why a guest's packet is not for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// Not from this guest to the host: dropped.
    Address,
    /// An unknown type or operation: answered with a reset.
    Unknown(Packet),
}

impl Packet {
    /// A packet without data, flags or credit.
    pub(super) fn control(op: Op, host_port: u32, guest_port: u32) -> Packet {
        Packet { host_port, guest_port, length: 0, op, flags: 0, buf_alloc: 0, fwd_cnt: 0 }
    }

    /// Reads what the guest with this context id sent.
    pub(super) fn from_guest(bytes: &[u8; HEADER], guest_cid: u64) -> Result<Packet, Foreign> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        if u64_at(0) != guest_cid || u64_at(8) != HOST_CID {
            return Err(Foreign::Address);
        }
        let mut packet = Packet {
            guest_port: u32_at(16),
            host_port: u32_at(20),
            length: u32_at(24),
            op: Op::Reset,
            flags: u32_at(32),
            buf_alloc: u32_at(36),
            fwd_cnt: u32_at(40),
        };
        match OPS.get(usize::from(u16_at(30)).wrapping_sub(1)) {
            Some(op) if u16_at(28) == STREAM => packet.op = *op,
            _ => return Err(Foreign::Unknown(packet)),
        }
        Ok(packet)
    }

    /// Writes it for the guest with this context id.
    pub(super) fn to_guest(self, guest_cid: u64) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..8].copy_from_slice(&HOST_CID.to_le_bytes());
        bytes[8..16].copy_from_slice(&guest_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.host_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.guest_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_le_bytes());
        bytes[28..30].copy_from_slice(&STREAM.to_le_bytes());
        bytes[30..32].copy_from_slice(&(self.op as u16 + 1).to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same packet as the guest would write it.
    fn guest_writes(packet: Packet, cid: u64) -> [u8; HEADER] {
        let mut bytes = packet.to_guest(cid);
        let (source, destination) = (bytes[0..8].to_vec(), bytes[8..16].to_vec());
        bytes[0..8].copy_from_slice(&destination);
        bytes[8..16].copy_from_slice(&source);
        let (source, destination) = (bytes[16..20].to_vec(), bytes[20..24].to_vec());
        bytes[16..20].copy_from_slice(&destination);
        bytes[20..24].copy_from_slice(&source);
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        for op in OPS {
            let packet =
                Packet { host_port: 4050, guest_port: 7, length: 3, op, flags: 2, buf_alloc: 9, fwd_cnt: 8 };
            assert_eq!(Packet::from_guest(&guest_writes(packet, 3), 3), Ok(packet));
        }
    }

    #[test]
    fn other_guests_addresses_and_unknown_operations_are_told_apart() {
        let good = guest_writes(Packet::control(Op::Request, 1, 2), 3);
        assert_eq!(Packet::from_guest(&good, 4), Err(Foreign::Address));
        let mut sibling = good;
        sibling[8] = 5;
        assert_eq!(Packet::from_guest(&sibling, 3), Err(Foreign::Address));
        for (at, value) in [(28, 2), (30, 0), (30, 8), (31, 1)] {
            let mut bad = good;
            bad[at] = value;
            assert!(matches!(Packet::from_guest(&bad, 3), Err(Foreign::Unknown(_))), "{at}");
        }
    }
}
