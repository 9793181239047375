//! What the kubelet does with slots, and what a host might.

use proptest::prelude::*;

use super::*;

const POD: [(Role, &str); 6] = [
    (Role::Init, "first"),
    (Role::Sidecar, "mesh"),
    (Role::Init, "second"),
    (Role::Main, "web"),
    (Role::Main, "log"),
    (Role::Debug, "shell"),
];

fn pod(policy: Restart) -> Slots {
    Slots::new(POD.into_iter().filter(|(_, name)| *name != "mesh"), policy)
}

fn run(slots: &mut Slots, name: &str, id: &str, code: ExitCode) -> Result<(), SlotError> {
    drop(slots.claim(name, id)?);
    slots.started(id);
    slots.exited(id, code);
    Ok(())
}

fn ready(policy: Restart) -> Slots {
    let mut slots = pod(policy);
    run(&mut slots, "first", "i1", 0).unwrap();
    run(&mut slots, "second", "i2", 0).unwrap();
    slots
}

#[test]
fn an_unknown_container_has_no_slot() {
    assert_eq!(ready(Restart::Always).claim("miner", "x").unwrap_err(), SlotError::Unknown("miner".into()));
}

#[test]
fn init_containers_come_first_and_in_order() {
    let mut slots = pod(Restart::Always);
    let order = |name: &str, waits: &str| SlotError::Order {
        name: name.into(),
        waits_for: waits.into(),
        sidecar: false,
    };
    assert_eq!(slots.claim("web", "w").unwrap_err(), order("web", "first"));
    assert_eq!(slots.claim("second", "s").unwrap_err(), order("second", "first"));
    run(&mut slots, "first", "a", 0).unwrap();
    assert_eq!(slots.claim("web", "w").unwrap_err(), order("web", "second"));
    // A failure and a running instance are no success.
    run(&mut slots, "second", "b", 1).unwrap();
    assert_eq!(slots.claim("web", "w").unwrap_err(), order("web", "second"));
    slots.claim("second", "c").unwrap();
    slots.started("c");
    assert_eq!(slots.claim("web", "w").unwrap_err(), order("web", "second"));
    slots.exited("c", 0);
    slots.claim("web", "w").unwrap();
    slots.claim("log", "l").unwrap();
}

#[test]
fn removing_an_init_container_that_never_ran_is_no_success() {
    let mut slots = pod(Restart::Always);
    slots.claim("first", "a").unwrap();
    slots.removed("a");
    assert!(matches!(slots.claim("second", "b"), Err(SlotError::Order { .. })));
    slots.claim("first", "a2").unwrap();
    slots.started("a2");
    slots.removed("a2");
    assert!(matches!(slots.claim("second", "b"), Err(SlotError::Order { .. })));
}

#[test]
fn an_init_container_that_the_host_told_to_end_has_not_succeeded() {
    let mut slots = pod(Restart::OnFailure);
    slots.claim("first", "a").unwrap();
    slots.started("a");
    slots.signalled("a", libc::SIGTERM);
    slots.exited("a", 0);
    assert!(matches!(slots.claim("second", "b"), Err(SlotError::Order { .. })));
    run(&mut slots, "first", "a2", 0).unwrap();
    slots.claim("second", "b").unwrap();
    // A main container that ends with 0 on TERM has ended well.
    let mut slots = ready(Restart::OnFailure);
    slots.claim("web", "w").unwrap();
    slots.started("w");
    slots.signalled("w", libc::SIGTERM);
    slots.exited("w", 0);
    assert_eq!(slots.claim("web", "w2").unwrap_err(), SlotError::Restart { name: "web".into(), code: 0 });
}

#[test]
fn a_second_instance_waits_for_the_first_to_end() {
    let mut slots = ready(Restart::Always);
    slots.claim("web", "w1").unwrap();
    let (name, id) = ("web".to_owned(), "w1".to_owned());
    assert_eq!(
        slots.claim("web", "w2").unwrap_err(),
        SlotError::Pending { name: name.clone(), id: id.clone() }
    );
    slots.started("w1");
    assert_eq!(slots.claim("web", "w2").unwrap_err(), SlotError::Busy { name, id });
    assert_eq!(slots.claim("log", "w1").unwrap_err(), SlotError::Duplicate("w1".into()));
    slots.exited("w1", 0);
    slots.claim("web", "w2").unwrap();
    // Late news about the first one change nothing for the second.
    slots.exited("w1", 5);
    slots.removed("w1");
    assert!(matches!(slots.claim("web", "w3"), Err(SlotError::Pending { .. })));
}

#[test]
fn the_sealed_restart_policy_decides() {
    for (policy, code, again) in [
        (Restart::Always, 0, true),
        (Restart::Always, 1, true),
        (Restart::OnFailure, 0, false),
        (Restart::OnFailure, 1, true),
        (Restart::Never, 0, false),
        (Restart::Never, 1, false),
    ] {
        let mut slots = ready(policy);
        run(&mut slots, "web", "w1", code).unwrap();
        assert_eq!(slots.claim("web", "w2").is_ok(), again, "{policy:?} after {code}");
    }
    // An init container that has succeeded is done; one that failed follows the policy.
    assert!(matches!(ready(Restart::Always).claim("first", "x"), Err(SlotError::Restart { .. })));
    for (policy, again) in [(Restart::Always, true), (Restart::OnFailure, true), (Restart::Never, false)] {
        let mut slots = pod(policy);
        run(&mut slots, "first", "a", 1).unwrap();
        assert_eq!(slots.claim("first", "b").is_ok(), again);
    }
}

#[test]
fn an_instance_that_never_started_does_not_count() {
    let mut slots = ready(Restart::Never);
    slots.claim("web", "w1").unwrap();
    slots.removed("w1");
    slots.claim("web", "w2").unwrap();
    // A created process that was killed before it was let go.
    slots.exited("w2", 137);
    slots.removed("w2");
    slots.claim("web", "w3").unwrap();
}

#[test]
fn a_sidecar_is_waited_for_until_it_was_started_and_no_longer() {
    let mut slots = Slots::new(POD, Restart::Never);
    assert!(matches!(slots.claim("mesh", "m"), Err(SlotError::Order { .. })), "after those before it");
    run(&mut slots, "first", "f", 0).unwrap();
    let waits = |slots: &mut Slots| match slots.claim("second", "s").unwrap_err() {
        SlotError::Order { waits_for, sidecar, .. } => (waits_for, sidecar),
        other => panic!("{other}"),
    };
    assert_eq!(waits(&mut slots), ("mesh".to_owned(), true));
    slots.claim("mesh", "m").unwrap();
    assert_eq!(waits(&mut slots), ("mesh".to_owned(), true), "made is not started");
    slots.started("m");
    // It runs on beside the others, and runs again whatever it ended with and the pod's policy says.
    run(&mut slots, "second", "s", 0).unwrap();
    slots.claim("web", "w").unwrap();
    for (again, code) in [("m2", 0), ("m3", 1), ("m4", 137)] {
        let before = if again == "m2" { "m" } else { "m3" };
        slots.exited(before, code);
        if again != "m3" {
            run(&mut slots, "mesh", again, code).unwrap();
        } else {
            slots.claim("mesh", "m3").unwrap();
            slots.started("m3");
        }
    }
    slots.claim("log", "l").unwrap();
}

#[test]
fn a_debug_container_waits_for_nobody_and_runs_once() {
    let mut slots = Slots::new(POD, Restart::Always);
    slots.claim("shell", "d").unwrap();
    slots.removed("d");
    run(&mut slots, "shell", "d2", 0).unwrap();
    assert!(matches!(slots.claim("shell", "d3"), Err(SlotError::Restart { .. })));
    assert!(matches!(slots.claim("web", "w"), Err(SlotError::Order { .. })), "nor does it stand for anybody");
}

#[test]
fn debug_containers_are_as_many_as_granted() {
    let container = sealed_spec::podspec::Container { name: "debugger".into(), ..Default::default() };
    let image = sealed_spec::ImageRef::pinned("r.example/d:1", "");
    let mut spec = SealedSpec::new(sealed_spec::PodSpec::default());
    let mut sidecar = container.clone();
    (sidecar.name, sidecar.restart_policy) =
        ("mesh".into(), Some(sealed_spec::podspec::ContainerRestartPolicy::Always));
    spec.pod.init_containers.push(sidecar);
    spec.grants.debug = Some(DebugGrant { names: "debugger-*".into(), count: 2, image, container });
    let mut slots = Slots::of(&spec);
    assert!(matches!(slots.claim("shell", "x"), Err(SlotError::Unknown(_))));
    for (name, id) in [("debugger-a", "a"), ("debugger-b", "b")] {
        slots.claim(name, id).unwrap();
        // A try that failed may come again, and counts once.
        slots.removed(id);
        run(&mut slots, name, id, 0).unwrap();
    }
    assert!(matches!(slots.claim("debugger-c", "c"), Err(SlotError::Debugged { count: 2, .. })));
    run(&mut slots, "mesh", "m", 0).unwrap();
    run(&mut slots, "mesh", "m2", 0).unwrap();
}

#[test]
fn a_later_try_asks_the_earlier_one_to_end() {
    let mut slots = ready(Restart::Always);
    let attempt = slots.claim("web", "w1").unwrap();
    assert!(!attempt.superseded());
    let end = slots.supersede("w1").unwrap();
    assert!(attempt.superseded() && end.has_changed().is_ok());
    slots.removed("w1");
    drop(attempt);
    assert!(end.has_changed().is_err(), "its end can be waited for");
    let later = slots.claim("web", "w2").unwrap();
    assert!(!later.superseded());
    assert!(slots.supersede("w1").is_none() && slots.supersede("nobody").is_none());
}

#[tokio::test]
async fn patience_ends_with_time_or_with_a_later_try() {
    let now = tokio::time::Instant::now();
    assert_eq!(Patience::until(now).over().await, Over::Time);
    let mut slots = ready(Restart::Always);
    let attempt = slots.claim("web", "w1").unwrap();
    let mut patience = attempt.patience(now + std::time::Duration::from_secs(3600));
    slots.supersede("w1").unwrap();
    assert_eq!(patience.over().await, Over::Superseded);
}

#[derive(Debug, Clone)]
enum Step {
    Claim(usize, u8),
    Start(u8),
    Exit(u8, i32),
    Remove(u8),
    Signal(u8),
    Supersede(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..POD.len(), 0u8..6).prop_map(|(n, id)| Step::Claim(n, id)),
        2 => (0u8..6).prop_map(Step::Start),
        2 => (0u8..6, 0i32..2).prop_map(|(id, code)| Step::Exit(id, code)),
        1 => (0u8..6).prop_map(Step::Remove),
        1 => (0u8..6).prop_map(Step::Signal),
        1 => (0u8..6).prop_map(Step::Supersede),
    ];
    prop::collection::vec(step, 0..80)
}

/// What really happened, told independently of the slots.
#[derive(Default)]
struct Truth {
    live: BTreeMap<u8, (usize, bool)>,
    known: std::collections::BTreeSet<u8>,
    starts: [usize; POD.len()],
    done: [bool; POD.len()],
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn whatever_the_host_asks_order_and_number_hold(
        steps in steps(),
        policy in prop_oneof![Just(Restart::Always), Just(Restart::OnFailure), Just(Restart::Never)],
    ) {
        let mut slots = Slots::new(POD, policy);
        let mut truth = Truth::default();
        let mut signals = std::collections::BTreeSet::new();
        for step in steps {
            match step {
                Step::Claim(n, id) => {
                    let (role, name) = POD[n];
                    if slots.claim(name, &id.to_string()).is_ok() {
                        prop_assert!(truth.live.values().all(|(slot, _)| *slot != n), "two instances");
                        prop_assert!(truth.known.insert(id), "an id names one instance");
                        if role != Role::Debug {
                            for (before, (role, _)) in POD.iter().enumerate().take(n) {
                                prop_assert!(*role != Role::Init || truth.done[before]);
                                prop_assert!(*role != Role::Sidecar || truth.starts[before] > 0);
                            }
                        }
                        truth.live.insert(id, (n, false));
                    }
                }
                Step::Start(id) => {
                    slots.started(&id.to_string());
                    if let Some((n, started)) = truth.live.get_mut(&id) {
                        truth.starts[*n] += usize::from(!*started);
                        *started = true;
                        signals.remove(&id);
                    }
                }
                Step::Exit(id, code) => {
                    slots.exited(&id.to_string(), code);
                    if let Some((n, started)) = truth.live.remove(&id) {
                        truth.done[n] |= started && code == 0 && !signals.contains(&id);
                    }
                }
                Step::Remove(id) => {
                    slots.removed(&id.to_string());
                    truth.live.remove(&id);
                    truth.known.remove(&id);
                }
                Step::Signal(id) => {
                    slots.signalled(&id.to_string(), libc::SIGTERM);
                    signals.insert(id);
                }
                Step::Supersede(id) => drop(slots.supersede(&id.to_string())),
            }
            for (n, (role, _)) in POD.iter().enumerate() {
                let once = matches!(role, Role::Debug) || policy == Restart::Never && *role != Role::Sidecar;
                prop_assert!(!once || truth.starts[n] <= 1, "{role:?} ran {} times", truth.starts[n]);
            }
        }
    }
}
