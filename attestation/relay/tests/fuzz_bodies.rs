//! Runs the bodies of the fuzz targets on the stable compiler: on random bytes, and on valid inputs with a few bytes
//! changed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../fuzz/bodies/relay.rs"]
mod bodies;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

fn good() -> Vec<Vec<u8>> {
    let capabilities = format!(
        "{{\"return\": {{\"pdh\": \"{}\", \"cert-chain\": \"{}\", \"cbitpos\": 51, \"reduced-phys-bits\": 1}}, \"id\": 1}}",
        STANDARD.encode([1; 64]),
        STANDARD.encode([2; 64])
    );
    let launch = "{\"return\": {\"enabled\": true, \"state\": \"launch-secret\", \"api-major\": 1, \"api-minor\": 5, \
                  \"build-id\": 2, \"policy\": 5}, \"id\": 1}";
    let measure = format!("{{\"return\": {{\"data\": \"{}\"}}, \"id\": 2}}", STANDARD.encode([7; 48]));
    let error = "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": 2}";
    let words = "-machine\nq35,confidential-guest-support=x\n-object\nsev-guest,id=x,policy=5\n-bios\nf\n-kernel\nk\n\
                 -drive\nif=none,file=/a,,b\n-blockdev\n{\"driver\":\"file\",\"filename\":\"/c\"}\n-daemonize";
    [capabilities.as_str(), launch, &measure, error, words].map(|text| text.as_bytes().to_vec()).to_vec()
}

fn run_all(bytes: &[u8]) {
    bodies::qmp_answers(bytes);
    bodies::command_line(bytes);
}

proptest! {
    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        run_all(&bytes);
    }

    #[test]
    fn damaged_inputs(
        which in 0..5_usize,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        end in any::<proptest::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = good().swap_remove(which);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        run_all(&bytes);
    }
}
