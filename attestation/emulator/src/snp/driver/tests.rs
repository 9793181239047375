//! The driver against a caller whose memory is a map: what the kernel's FUSE code does between the rounds.

use super::*;
use std::collections::BTreeMap;

const ARGUMENT_AT: u64 = 0x1_0000;
const REQUEST_AT: u64 = 0x2_0000;
const RESPONSE_AT: u64 = 0x3_0000;
const CERTIFICATES_AT: u64 = 0x4_0000;

/// Answers from a list; counts calls and waits.
#[derive(Default)]
struct Script {
    answers: Vec<io::Result<Answer>>,
    calls: Vec<Call>,
    waits: u32,
}

impl Platform for Script {
    fn call(&mut self, call: &Call) -> io::Result<Answer> {
        self.calls.push(call.clone());
        if self.answers.is_empty() { Ok(busy()) } else { self.answers.remove(0) }
    }

    fn wait(&mut self, delay: Duration) {
        assert_eq!(delay, Duration::from_secs(2));
        self.waits += 1;
    }
}

fn driver(answers: impl IntoIterator<Item = Answer>) -> Driver<Script> {
    Driver::new(Script { answers: answers.into_iter().map(Ok).collect(), ..Script::default() })
}

fn busy() -> Answer {
    Answer { exit_info: BUSY, ..Answer::default() }
}

fn report() -> Answer {
    Answer { message: vec![0x11; 1216], ..Answer::default() }
}

/// A process with some memory mapped.
struct Caller {
    memory: BTreeMap<u64, Vec<u8>>,
    rounds: u32,
}

impl Caller {
    fn new(certificates: Option<usize>) -> Self {
        let mut argument = vec![0; ARGUMENT];
        argument[0] = 1;
        argument[8..16].copy_from_slice(&REQUEST_AT.to_le_bytes());
        argument[16..24].copy_from_slice(&RESPONSE_AT.to_le_bytes());
        argument[24..32].fill(0xee);
        let mut request = vec![0x22; EXTENDED_REQUEST];
        request[REPORT_REQUEST..].fill(0);
        let mut memory = BTreeMap::new();
        if let Some(length) = certificates {
            request[REPORT_REQUEST..][..8].copy_from_slice(&CERTIFICATES_AT.to_le_bytes());
            request[CERTIFICATES_LENGTH_AT..][..4].copy_from_slice(&(length as u32).to_le_bytes());
            memory.insert(CERTIFICATES_AT, vec![0xcc; length]);
        }
        memory.insert(ARGUMENT_AT, argument);
        memory.insert(REQUEST_AT, request);
        memory.insert(RESPONSE_AT, vec![0xdd; REPORT_RESPONSE]);
        Self { memory, rounds: 0 }
    }

    /// `fuse_do_ioctl`: copies what a retry asks for, then the output into its ranges in order.
    fn ioctl(&mut self, driver: &mut Driver<Script>, command: u32) -> i32 {
        let mut input = Vec::new();
        let mut ranges: Vec<Range> = Vec::new();
        for round in 1..=8 {
            self.rounds = round;
            let output = ranges.iter().map(|range| range.length as usize).sum();
            let request = Ioctl { command, argument: ARGUMENT_AT, compat: false, input: &input, output };
            match driver.ioctl(&request) {
                Outcome::Retry { input: wanted, output } => {
                    input.clear();
                    for range in wanted {
                        let Some(bytes) = self.memory.get(&range.base) else {
                            return -(Errno::EFAULT as i32);
                        };
                        input.extend_from_slice(&bytes[..range.length as usize]);
                    }
                    ranges = output;
                }
                Outcome::Done { result, output } => {
                    let mut rest = &output[..];
                    for range in ranges {
                        let (now, later) = rest.split_at(rest.len().min(range.length as usize));
                        if !now.is_empty() {
                            self.memory.get_mut(&range.base).unwrap()[..now.len()].copy_from_slice(now);
                        }
                        rest = later;
                    }
                    assert!(rest.is_empty(), "more output than ranges");
                    return result;
                }
            }
        }
        panic!("the driver asks again and again");
    }

    fn exit_info(&self) -> u64 {
        long(&self.memory[&ARGUMENT_AT][24..])
    }

    fn certificates_length(&self) -> u32 {
        word(&self.memory[&REQUEST_AT][CERTIFICATES_LENGTH_AT..])
    }
}

const UNTOUCHED: u64 = 0xeeee_eeee_eeee_eeee;

fn errno(errno: Errno) -> i32 {
    -(errno as i32)
}

#[test]
fn a_report_fills_the_response_and_nothing_else() {
    let (mut driver, mut caller) = (driver([report()]), Caller::new(None));
    assert_eq!(caller.ioctl(&mut driver, GET_REPORT), 0);
    assert_eq!(caller.rounds, 3);
    assert_eq!(driver.platform.calls, [Call::Report([0x22; REPORT_REQUEST])]);
    let response = &caller.memory[&RESPONSE_AT];
    assert_eq!(response[..1216], [0x11; 1216]);
    assert_eq!(response[1216..], [0; REPORT_RESPONSE - 1216]);
    assert_eq!(caller.exit_info(), UNTOUCHED, "the kernel leaves exitinfo2 alone on success");
}

#[test]
fn the_rounds_ask_for_argument_then_request_then_certificates() {
    let mut driver = driver([]);
    let caller = Caller::new(Some(8192));
    let ask = |driver: &mut Driver<Script>, input: &[u8], output| {
        driver.ioctl(&Ioctl {
            command: GET_EXTENDED_REPORT,
            argument: ARGUMENT_AT,
            compat: false,
            input,
            output,
        })
    };
    let range = |base, length: usize| Range { base, length: length as u64 };
    let argument = range(ARGUMENT_AT, 32);
    let first = ask(&mut driver, &[], 0);
    assert_eq!(first, Outcome::Retry { input: vec![argument], output: vec![argument] });
    let mut input = caller.memory[&ARGUMENT_AT].clone();
    let both = vec![argument, range(REQUEST_AT, 112)];
    let second = ask(&mut driver, &input, 32);
    let mut output = vec![argument, range(REQUEST_AT, 112), range(RESPONSE_AT, 4000)];
    assert_eq!(second, Outcome::Retry { input: both.clone(), output: output.clone() });
    input.extend_from_slice(&caller.memory[&REQUEST_AT]);
    let third = ask(&mut driver, &input, 32 + 112 + 4000);
    output.push(range(CERTIFICATES_AT, 8192));
    assert_eq!(third, Outcome::Retry { input: both, output });
    assert!(driver.platform.calls.is_empty(), "the firmware is asked once, when everything is there");
}

#[test]
fn an_extended_report_brings_certificates_padded_to_the_buffer() {
    let answer = Answer { certificates: vec![0x33; 5000], ..report() };
    let (mut driver, mut caller) = (driver([answer]), Caller::new(Some(8192)));
    assert_eq!(caller.ioctl(&mut driver, GET_EXTENDED_REPORT), 0);
    assert_eq!(driver.platform.calls, [Call::ExtendedReport([0x22; REPORT_REQUEST], 2)]);
    assert_eq!(caller.memory[&CERTIFICATES_AT][..5000], [0x33; 5000]);
    assert_eq!(caller.memory[&CERTIFICATES_AT][5000..], [0; 3192]);
    assert_eq!(caller.memory[&RESPONSE_AT][..1216], [0x11; 1216]);
    assert_eq!(caller.certificates_length(), 8192);
}

#[test]
fn too_little_room_for_certificates_says_how_much_is_needed() {
    for certificates in [None, Some(4096)] {
        let small = Answer { exit_info: INVALID_LENGTH, pages: 2, ..Answer::default() };
        let (mut driver, mut caller) = (driver([small, report(), report()]), Caller::new(certificates));
        assert_eq!(caller.ioctl(&mut driver, GET_EXTENDED_REPORT), errno(Errno::EIO));
        assert_eq!(caller.exit_info(), 1 << 32);
        assert_eq!(caller.certificates_length(), 8192);
        assert_eq!(caller.memory[&RESPONSE_AT], vec![0xdd; REPORT_RESPONSE], "no response");
        assert_eq!(
            driver.platform.calls[1],
            Call::Report([0x22; REPORT_REQUEST]),
            "keeps the sequence going"
        );
        assert_eq!(caller.ioctl(&mut driver, GET_REPORT), 0, "the device still works");
    }
}

#[test]
fn certificate_buffers_that_are_not_whole_pages_are_invalid() {
    for length in [1, 4095, 4097, 0x5000] {
        let (mut driver, mut caller) = (driver([report()]), Caller::new(Some(length)));
        assert_eq!(caller.ioctl(&mut driver, GET_EXTENDED_REPORT), errno(Errno::EINVAL), "{length}");
        assert_eq!(caller.exit_info(), EXIT_INFO_UNSET);
        assert!(driver.platform.calls.is_empty());
    }
}

#[test]
fn a_busy_host_is_asked_again_every_two_seconds() {
    let (mut driver, mut caller) = (driver([busy(), busy(), report()]), Caller::new(None));
    assert_eq!(caller.ioctl(&mut driver, GET_REPORT), 0);
    assert_eq!(driver.platform.waits, 2);
    assert!(driver.platform.calls.windows(2).all(|pair| pair[0] == pair[1]), "always the same request");
}

#[test]
fn a_host_that_stays_busy_times_out_and_disables_the_key() {
    let (mut driver, mut caller) = (driver([]), Caller::new(None));
    assert_eq!(caller.ioctl(&mut driver, GET_REPORT), errno(Errno::ETIMEDOUT));
    assert_eq!(caller.exit_info(), BUSY);
    assert_eq!(driver.platform.waits, 31);
    assert_eq!(caller.ioctl(&mut driver, GET_REPORT), errno(Errno::ENOTTY));
    assert_eq!(caller.rounds, 2);
}

#[test]
fn a_failing_host_disables_the_key() {
    for (answer, exit_info) in [
        (Ok(Answer { exit_info: 3 << 32, ..Answer::default() }), 3 << 32),
        (Err(io::ErrorKind::ConnectionReset.into()), NO_FIRMWARE_CALL),
    ] {
        let mut driver = Driver::new(Script { answers: vec![answer], ..Script::default() });
        let mut caller = Caller::new(None);
        assert_eq!(caller.ioctl(&mut driver, GET_REPORT), errno(Errno::EIO));
        assert_eq!(caller.exit_info(), exit_info);
        assert_eq!(caller.ioctl(&mut driver, GET_REPORT), errno(Errno::ENOTTY));
    }
}

#[test]
fn arguments_are_checked_in_the_kernels_order() {
    let with = |at: usize, bytes: &[u8], command: u32| {
        let (mut driver, mut caller) = (driver([report()]), Caller::new(None));
        caller.memory.get_mut(&ARGUMENT_AT).unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
        let result = caller.ioctl(&mut driver, command);
        assert!(driver.platform.calls.is_empty());
        (result, caller.exit_info())
    };
    assert_eq!(with(0, &[0], GET_REPORT), (errno(Errno::EINVAL), UNTOUCHED), "message version");
    assert_eq!(with(0, &[1], 0xc020_5303), (errno(Errno::ENOTTY), EXIT_INFO_UNSET), "unknown command");
    assert_eq!(with(8, &[0; 8], GET_REPORT), (errno(Errno::EINVAL), EXIT_INFO_UNSET), "no request");
    assert_eq!(with(16, &[0; 8], GET_REPORT), (errno(Errno::EINVAL), EXIT_INFO_UNSET), "no response");
    assert_eq!(
        with(8, &7_u64.to_le_bytes(), GET_REPORT),
        (errno(Errno::EFAULT), UNTOUCHED),
        "unmapped request"
    );
}

#[test]
fn a_32_bit_caller_is_refused() {
    let ioctl = Ioctl { command: GET_REPORT, argument: 0, compat: true, input: &[], output: 0 };
    assert_eq!(driver([]).ioctl(&ioctl), failed(Errno::ENOTTY));
}

#[test]
fn a_derived_key_comes_back_in_64_bytes() {
    let answer = Answer { message: vec![0x44; 64], ..Answer::default() };
    let (mut driver, mut caller) = (driver([answer]), Caller::new(None));
    assert_eq!(caller.ioctl(&mut driver, GET_DERIVED_KEY), 0);
    assert_eq!(driver.platform.calls, [Call::DerivedKey([0x22; KEY_REQUEST])]);
    assert_eq!(caller.memory[&RESPONSE_AT][..64], [0x44; 64]);
    assert_eq!(caller.memory[&RESPONSE_AT][64..], [0xdd; REPORT_RESPONSE - 64]);
}
