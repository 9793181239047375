//! Frames that a hostile peer might send: requests of every RPC with plausible contents, changed at random. The
//! same seed gives the same frames.

use crate::frames::{Frame, field, number};

/// Everything but `DestroySandbox`, which ends the guest as it should.
const METHODS: [&str; 42] = [
    "CreateContainer",
    "StartContainer",
    "RemoveContainer",
    "ExecProcess",
    "SignalProcess",
    "WaitProcess",
    "UpdateContainer",
    "UpdateEphemeralMounts",
    "StatsContainer",
    "PauseContainer",
    "ResumeContainer",
    "RemoveStaleVirtiofsShareMounts",
    "GetDiagnosticData",
    "WriteStdin",
    "ReadStdout",
    "ReadStderr",
    "CloseStdin",
    "TtyWinResize",
    "UpdateInterface",
    "UpdateRoutes",
    "ListInterfaces",
    "ListRoutes",
    "AddARPNeighbors",
    "GetIPTables",
    "SetIPTables",
    "GetMetrics",
    "MemAgentMemcgSet",
    "MemAgentCompactSet",
    "CreateSandbox",
    "OnlineCPUMem",
    "ReseedRandomDev",
    "GetGuestDetails",
    "MemHotplugByProbe",
    "SetGuestDateTime",
    "CopyFile",
    "GetOOMEvent",
    "AddSwap",
    "AddSwapPath",
    "GetVolumeStats",
    "ResizeVolume",
    "SetPolicy",
    "Nothing",
];

const STRINGS: [&[u8]; 8] = [
    b"",
    b"main",
    b"../../etc/passwd",
    b"/run/kata-containers/shared/containers/x",
    b"\0",
    b"\xff\xfe",
    b"%s%n",
    b"lo",
];

/// A generator of frames.
#[derive(Debug)]
pub struct Mutations(u64);

impl Mutations {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The bytes of the next frame, meant for `stream`.
    pub fn frame(&mut self, stream: u32) -> Vec<u8> {
        let payload = match self.below(4) {
            0 => self.noise(64),
            _ => self.message(3),
        };
        let method = METHODS[self.below(METHODS.len())];
        let mut frame = Frame::request(stream, "grpc.AgentService", method, &payload);
        match self.below(8) {
            // As it is, half of the time.
            0..4 => {}
            4 => {
                let at = self.below(frame.message.len().max(1));
                if let Some(byte) = frame.message.get_mut(at) {
                    *byte ^= 1 << (self.0 % 8);
                }
            }
            5 => frame.message.truncate(self.below(frame.message.len() + 1)),
            6 => {
                frame.kind = self.next() as u8;
                frame.flags = self.next() as u8;
            }
            _ => frame.stream = self.next() as u32,
        }
        match self.below(40) {
            // The length lies: what follows on the connection is out of step.
            0 => frame.bytes_that_claim(self.next() as u32 >> self.below(32)),
            _ => frame.bytes(),
        }
    }

    /// A message of known and unknown fields, nested.
    fn message(&mut self, depth: usize) -> Vec<u8> {
        let mut message = Vec::new();
        for _ in 0..self.below(6) {
            let name = self.below(14) as u64 + 1;
            match self.below(4) {
                0 => {
                    let shift = self.below(64);
                    let value = self.next() >> shift;
                    number(&mut message, name, value);
                }
                1 if depth > 0 => {
                    let inner = self.message(depth - 1);
                    field(&mut message, name, &inner);
                }
                2 => {
                    let bytes = self.noise(300);
                    field(&mut message, name, &bytes);
                }
                _ => {
                    let string = STRINGS[self.below(STRINGS.len())];
                    field(&mut message, name, string);
                }
            }
        }
        message
    }

    fn noise(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.next() as u8).collect()
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// xorshift64*
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_sequence() {
        let frames = |seed| -> Vec<Vec<u8>> {
            let mut mutations = Mutations::new(seed);
            (0..100).map(|stream| mutations.frame(stream)).collect()
        };
        assert_eq!(frames(1), frames(1));
        assert_ne!(frames(1), frames(3));
    }

    #[test]
    fn every_rpc_but_the_end_is_meant() {
        let proto = include_str!("../../protocols/proto/agent.proto");
        let named = proto
            .lines()
            .filter_map(|line| line.trim().strip_prefix("rpc "))
            .filter_map(|line| line.split(['(', ' ']).next());
        for rpc in named {
            assert_eq!(METHODS.contains(&rpc), rpc != "DestroySandbox", "{rpc}");
        }
    }
}
